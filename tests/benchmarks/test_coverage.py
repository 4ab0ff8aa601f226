"""The intervals cover the truth about as often as they say: a small version of `python -m benchmarks.coverage`."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.coverage import TRUTH, repeat, report, simulate
from cxr.evaluation.metrics import auroc, average_precision

pytestmark = pytest.mark.slow

REPETITIONS = 150


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return repeat(patients=150, repetitions=REPETITIONS, resamples=200)


def test_the_simulation_has_the_truth_that_it_claims() -> None:
    study = simulate(TRUTH, 50_000, np.random.default_rng(0))
    np.testing.assert_allclose(study.labels.mean(axis=0), TRUTH.prevalence, rtol=0.05)
    for scores in (study.first, study.second):
        np.testing.assert_allclose(auroc(study.labels, scores), TRUTH.auroc, atol=0.005)
        np.testing.assert_allclose(average_precision(study.labels, scores), TRUTH.average_precision(), atol=0.015)


def test_intervals_cover_the_truth_about_95_times_in_100(found: pd.DataFrame) -> None:
    # Four standard errors at 95 in 100 are 7; the rarest class has four positive patients, and is not promised.
    promised = found.drop(index="1%, 0.95")
    assert (promised["auroc_covered"] > 0.88).all()
    assert (promised["average_precision_covered"] > 0.88).all()
    assert (promised["n"] == REPETITIONS).all()


def test_equals_are_seldom_told_apart(found: pd.DataFrame) -> None:
    assert (found["called_different"] < 0.05 + 0.07).all()
    assert found["called_different"].max() > 0


def test_resampling_images_gives_too_narrow_intervals(found: pd.DataFrame) -> None:
    assert (found["auroc_width_by_images"] < found["auroc_width"]).all()
    assert found["auroc_covered_by_images"].mean() < found["auroc_covered"].mean()


def test_the_report_gives_a_line_to_each_class(found: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    report(found, 150, REPETITIONS, 200)
    lines = capsys.readouterr().out.splitlines()
    assert [line[: len(name)] for line, name in zip(lines[-5:], TRUTH.names, strict=True)] == TRUTH.names
