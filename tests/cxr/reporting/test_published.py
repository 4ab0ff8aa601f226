import numpy as np
import pandas as pd
import pytest

from cxr.core.labels import FINDINGS
from cxr.datasets.registry import NIH
from cxr.reporting.published import (
    FINDING_RESULTS,
    OFFICIAL_TEST_IMAGES,
    RunData,
    describe_data,
    reasons_not_comparable,
)

REAL = RunData(name=NIH, is_synthetic=False, is_official=True, train_images=10, test_images=OFFICIAL_TEST_IMAGES)


def test_results_by_finding_have_the_published_means() -> None:
    assert all(set(result.auroc) == set(FINDINGS) for result in FINDING_RESULTS)
    means = {result.name: np.mean(list(result.auroc.values())) for result in FINDING_RESULTS}
    assert means["CheXNet"] == pytest.approx(0.841, abs=5e-4)


def test_a_split_is_official_if_every_image_is_in_its_official_part() -> None:
    sample = pd.DataFrame({"image": ["a", "b", "c"], "split": ["train", "val", "test"]})
    lists = pd.DataFrame({"image": ["a", "b", "c"], "list": ["train_val", "train_val", "test"]})
    assert describe_data(sample, lists, name=NIH, is_synthetic=False) == (NIH, False, True, 1, 1)
    assert not describe_data(sample, lists[:0], name=NIH, is_synthetic=False).is_official
    assert not describe_data(sample, lists[1:], name=NIH, is_synthetic=False).is_official
    assert not describe_data(sample, lists.assign(list="test"), name=NIH, is_synthetic=False).is_official


@pytest.mark.parametrize(
    ("data", "official", "random"),
    [
        (REAL._replace(is_synthetic=True), "synthetic", "synthetic"),
        (REAL._replace(name="CheXpert"), "other data (CheXpert)", "other data (CheXpert)"),
        (REAL._replace(is_official=False), "does not use NIH's official split", "not available"),
        (REAL._replace(test_images=357), "357 of the 25,596", "uses NIH's official split"),
        (REAL, "", "uses NIH's official split"),
    ],
)
def test_results_are_comparable_on_the_same_test_images_only(data: RunData, official: str, random: str) -> None:
    reasons = reasons_not_comparable(data, "official")
    assert official in " ".join(reasons)
    assert bool(reasons) == bool(official)
    assert random in " ".join(reasons_not_comparable(data, "random"))
