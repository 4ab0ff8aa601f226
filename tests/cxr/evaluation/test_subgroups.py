from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cxr.core.labels import CLASSES, label_matrix
from cxr.core.tables import read_sample
from cxr.datasets.nih import read_table
from cxr.evaluation import subgroups
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.metrics import PerClass
from cxr.evaluation.subgroups import UNKNOWN_GROUP, Group, subgroup_metrics


def table_of(images: int = 400, seed: int = 0) -> pd.DataFrame:
    """Random people with every attribute, some ages missing, and 15 random labels each."""
    random = np.random.default_rng(seed)
    ages = pd.array(random.integers(0, 96, images), dtype="Int64")
    ages[random.random(images) < 0.1] = pd.NA
    people = {"sex": random.choice(["F", "M"], images), "age": ages, "view": random.choice(["AP", "PA"], images)}
    return pd.DataFrame(people | {name: random.random(images) < 0.3 for name in CLASSES})


def assert_groups_part_the_images(table: pd.DataFrame) -> None:
    masks = subgroups.groups(table)
    for attribute in subgroups.ATTRIBUTES:
        members = np.stack([mask for (of, _), mask in masks.items() if of == attribute])
        assert (members.sum(axis=0) == 1).all()
        assert members.any(axis=1).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_each_image_is_in_one_group_of_each_attribute(seed: int, images: int) -> None:
    assert_groups_part_the_images(table_of(images, seed))


def test_a_birthday_opens_the_next_band() -> None:
    ages = pd.array([0, 17, 18, 39, 40, 59, 60, 95, pd.NA], dtype="Int64")
    masks = subgroups.groups(pd.DataFrame({"sex": "F", "age": ages, "view": "PA"}))
    assert {group: np.flatnonzero(mask).tolist() for group, mask in masks.items()} == {
        ("sex", "F"): list(range(9)),
        ("age", "under 18"): [0, 1],
        ("age", "18-39"): [2, 3],
        ("age", "40-59"): [4, 5],
        ("age", "60 and over"): [6, 7],
        ("age", "unknown"): [8],
        ("view", "PA"): list(range(9)),
    }


def test_what_the_pipeline_writes_can_be_grouped(tmp_path: Path) -> None:
    table_of(50).assign(image=[f"{row}.png" for row in range(50)], patient=1).to_csv(
        tmp_path / "sample.csv", index=False
    )
    text = (tmp_path / "sample.csv").read_text(encoding="utf-8").replace("True", "1").replace("False", "0")
    (tmp_path / "sample.csv").write_text(text, encoding="utf-8")
    sample = read_sample(tmp_path / "sample.csv")
    assert ("age", "unknown") in subgroups.groups(sample)
    assert_groups_part_the_images(sample)


def test_a_class_needs_10_positives_and_10_negatives() -> None:
    labels = np.zeros((40, 15), np.uint8)
    labels[:10, 0] = 1
    labels[:31, 1] = 1
    labels[:9, 2] = 1
    assert np.flatnonzero(subgroups.has_enough_images(labels)).tolist() == [0]


def values_of(*of_each_band: list[float]) -> dict[Group, PerClass]:
    """Values of the first classes in each age band, and at last of unknown age; other classes are nan."""
    names = [*subgroups.AGE_BANDS, subgroups.UNKNOWN_GROUP]
    return {
        ("age", name): np.array(values + [np.nan] * (15 - len(values)))
        for name, values in zip(names, of_each_band, strict=False)
    }


def gaps_of(values: dict[Group, PerClass]) -> dict[str, tuple[Any, ...]]:
    """Of each class: highest, lowest, gap, classes."""
    rows = subgroups.largest_gaps(values).itertuples(index=False, name=None)
    return {str(name): tuple(rest) for _, name, *rest in rows}


def test_the_largest_gap_names_its_groups() -> None:
    gaps = gaps_of(values_of([0.7, 0.9, 0.5], [0.8, np.nan], [0.9, 0.6], [0.85, 0.8], [0.1, 0.1, 0.1]))
    assert list(gaps) == [*CLASSES, "mean"]
    assert gaps[CLASSES[0]] == ("40-59", "under 18", pytest.approx(0.2), 1)
    assert gaps[CLASSES[1]] == ("under 18", "40-59", pytest.approx(0.3), 1)
    assert gaps[CLASSES[2]] == ("", "", pytest.approx(np.nan, nan_ok=True), 1)


def test_means_are_compared_over_the_classes_that_all_groups_have() -> None:
    # The means of all that each has, 0.65 and 0.8, would say that the first group fares worse.
    values = values_of([0.9, 0.4], [0.8], [], [], [np.nan, 0.5])
    assert np.flatnonzero(subgroups.shared_classes(values, "age")).tolist() == [0]
    assert gaps_of(values)["mean"] == ("under 18", "18-39", pytest.approx(0.1), 1)


def test_groups_without_a_class_in_common_have_no_gap_of_means() -> None:
    assert gaps_of(values_of([0.9], [np.nan, 0.8]))["mean"] == ("", "", pytest.approx(np.nan, nan_ok=True), 0)
    assert not subgroups.shared_classes(values_of([]), "age").any()


@pytest.mark.real_data
def test_groups_part_the_whole_of_nih(real_table: pd.DataFrame) -> None:
    assert_groups_part_the_images(real_table)
    masks = subgroups.groups(real_table)
    images = {group: int(mask.sum()) for group, mask in masks.items()}
    assert images["sex", "M"] == 63_340
    assert images["view", "PA"] == 67_310
    assert images["age", "under 18"] == 5_402
    labels = label_matrix(real_table)
    few = {
        (group, CLASSES[column])
        for (_, group), mask in masks.items()
        for column in np.flatnonzero(~subgroups.has_enough_images(labels[mask]))
    }
    assert few == {("under 18", "Hernia"), ("18-39", "Hernia")}


@pytest.mark.real_data
def test_groups_part_the_mini_set(shared: Path) -> None:
    assert_groups_part_the_images(read_table(shared / "nih-mini"))


def test_a_group_with_too_few_of_every_class_has_no_mean() -> None:
    random = np.random.default_rng(0)
    ages = [10] * 8 + [30] * 100 + [70] * 100
    table = pd.DataFrame({"sex": "F", "age": ages, "view": "PA"})
    labels = (random.random((208, 15)) < 0.4).astype(np.uint8)
    scores = random.random(labels.shape)
    groups = subgroup_metrics(table, labels, scores, bootstrap_patients(np.arange(208), 100, 1)).root["age"].groups
    assert {name: group.classes_in_mean for name, group in groups.items()} == {
        "under 18": 0,
        "18-39": 15,
        "60 and over": 15,
    }
    assert "mean" not in groups["under 18"].auroc
    assert all(groups["under 18"].auroc[name].value is None for name in CLASSES)
    expected = roc_auc_score(labels[8:108], scores[8:108])
    np.testing.assert_allclose(np.array(groups["18-39"].auroc["mean"].value, float), expected)


def test_a_group_of_unknown_value_counts_the_classes_that_its_own_mean_is_over() -> None:
    random = np.random.default_rng(1)
    table = pd.DataFrame({"sex": ["F"] * 100 + ["M"] * 100 + [""] * 50, "age": 50, "view": "PA"})
    labels = (random.random((250, 15)) < 0.5).astype(np.uint8)
    labels[200:, 3] = 0
    groups = subgroup_metrics(table, labels, random.random(labels.shape), bootstrap_patients(np.arange(250), 100, 1))
    counted = {name: group.classes_in_mean for name, group in groups.root["sex"].groups.items()}
    assert counted == {"F": 15, "M": 15, UNKNOWN_GROUP: 14}
