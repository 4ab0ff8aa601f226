"""`benchmarks.coverage` at a small size: coverage of the intervals and false positives."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.coverage import TRUTH, cover_proportion, print_results, repeat, simulate
from cxr.evaluation.metrics import auroc, average_precision

pytestmark = pytest.mark.slow

REPETITIONS = 150


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return repeat(patients=150, repetitions=REPETITIONS, samples=200)


def test_simulated_test_sets_have_the_prevalence_and_metrics_of_the_truth() -> None:
    test = simulate(TRUTH, 50_000, np.random.default_rng(0))
    np.testing.assert_allclose(test.labels.mean(axis=0), TRUTH.prevalence, rtol=0.05)
    for scores in (test.first, test.second):
        np.testing.assert_allclose(auroc(test.labels, scores), TRUTH.auroc, atol=0.005)
        np.testing.assert_allclose(average_precision(test.labels, scores), TRUTH.average_precision(), atol=0.015)


def test_intervals_cover_the_truth_about_95_times_in_100(found: pd.DataFrame) -> None:
    # Four standard errors at 95 in 100 are 7; the rarest class has four positive patients and is excluded.
    included = found.drop(index="1%, 0.95")
    assert (included["auroc_covered"] > 0.88).all()
    assert (included["average_precision_covered"] > 0.88).all()
    assert (included["n"] == REPETITIONS).all()


def test_equally_good_networks_seldom_differ_significantly(found: pd.DataFrame) -> None:
    assert (found["is_significant"] < 0.05 + 0.07).all()
    assert found["is_significant"].max() > 0


def test_a_bootstrap_over_images_gives_too_narrow_intervals(found: pd.DataFrame) -> None:
    assert (found["auroc_width_by_images"] < found["auroc_width"]).all()
    assert found["auroc_covered_by_images"].mean() < found["auroc_covered"].mean()


def test_the_report_gives_a_line_to_each_class(found: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(found, 150, REPETITIONS, 200)
    lines = capsys.readouterr().out.splitlines()
    assert [line[: len(name)] for line, name in zip(lines[-5:], TRUTH.names, strict=True)] == TRUTH.names


def test_every_sensitivity_has_an_interval_that_covers_it() -> None:
    """Without the exact interval, a third of the intervals would be missing here."""
    found = cover_proportion(0.95, patients=15, repetitions=REPETITIONS, samples=100)
    assert found.covered > 0.95 - 0.07
    assert 0.4 < found.bootstrap_defined < 0.9
    assert 0 < found.width < 0.6
