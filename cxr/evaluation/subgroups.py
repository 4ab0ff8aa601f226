"""Subgroups of patients: whether the networks serve women and men, young and old, and both views alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.labels import CLASSES
from cxr.evaluation.metrics import Labels, PerClass, negatives, positives

Group = tuple[str, str]  # an attribute and its value: ("sex", "F")
Mask = NDArray[np.bool_]

ATTRIBUTES = ("sex", "age", "view")
UNKNOWN = "unknown"
# From these years on: children, whose chests look otherwise, and adults in bands with thousands of NIH's images each.
AGE_BANDS = {"under 18": 0, "18-39": 18, "40-59": 40, "60 and over": 60}
# With 10 positives, an AUROC of 0.8 has a standard error of 0.08 by Hanley and McNeil's formula (1982), and more where
# they are of few patients: fewer say nothing about a group.
FEWEST = 10


def groups(table: pd.DataFrame) -> dict[Group, Mask]:
    """Which images of `table`, with the columns sex, age (years) and view, are of each group: bool [images].

    The groups of one attribute part the images: each is in exactly one. A missing value is in the group `UNKNOWN`;
    groups without images are left out.
    """
    found = {}
    for attribute in ATTRIBUTES:
        values = _age_band(table["age"]) if attribute == "age" else _value(table[attribute])
        order = [*AGE_BANDS, UNKNOWN] if attribute == "age" else sorted(set(values))
        masks = {(attribute, value): values == value for value in order}
        found.update({group: mask for group, mask in masks.items() if mask.any()})
    return found


def enough(labels: Labels) -> Mask:
    """Which classes have `FEWEST` positives and `FEWEST` negatives or more in `labels`: bool [classes]."""
    return (positives(labels) >= FEWEST) & (negatives(labels) >= FEWEST)


def counts(masks: Mapping[Group, Mask], labels: Labels) -> pd.DataFrame:
    """A row for each group and class: attribute, group, class, images, positives, and whether they are `enough`.

    `labels` is uint8 [images, 15].
    """
    rows = [
        (*group, name, int(mask.sum()), int(count), bool(sufficient))
        for group, mask in masks.items()
        for name, count, sufficient in zip(CLASSES, positives(labels[mask]), enough(labels[mask]), strict=True)
    ]
    return pd.DataFrame(rows, columns=["attribute", "group", "class", "images", "positives", "enough"])


def shared_classes(values: Mapping[Group, PerClass], attribute: str) -> Mask:
    """The classes that all groups of `attribute` have a value of, bool [classes].

    Only over these can the means of groups be compared. `UNKNOWN`, and groups without any value, are not counted.
    """
    compared = _compared(values, attribute)
    if not compared:
        return np.zeros(len(next(iter(values.values()))), bool)
    return np.logical_and.reduce([~np.isnan(value) for value in compared.values()])


def largest_gaps(values: Mapping[Group, PerClass]) -> pd.DataFrame:
    """The two groups of each attribute that lie farthest apart, for each of the 15 classes and their mean.

    The largest of several differences is above 0 by chance alone, and the more so the smaller the groups: it means
    nothing without the interval of the difference between the two groups that it names.

    Args:
        values: of each group, float [15]; nan for classes of which a group has not `enough`.

    Returns:
        A row for each attribute and class: attribute, class, highest and lowest (groups), gap, and classes, the number
        that the row is about: 1, or for `mean` those of `shared_classes`. Where fewer than two groups have a value,
        the groups are empty and the gap is nan. The group `UNKNOWN` is left out.
    """
    rows: list[tuple[Any, ...]] = []
    for attribute in dict.fromkeys(attribute for attribute, _ in values):
        compared = _compared(values, attribute)
        for column, name in enumerate(CLASSES):
            by_value = {group: value[column] for group, value in compared.items()}
            rows.append((attribute, name, *_farthest(by_value), 1))
        shared = shared_classes(values, attribute)
        means = {group: value[shared].mean() for group, value in compared.items() if shared.any()}
        rows.append((attribute, "mean", *_farthest(means), int(shared.sum())))
    return pd.DataFrame(rows, columns=["attribute", "class", "highest", "lowest", "gap", "classes"])


def _compared(values: Mapping[Group, PerClass], attribute: str) -> dict[str, PerClass]:
    return {
        group: value
        for (of, group), value in values.items()
        if of == attribute and group != UNKNOWN and not np.isnan(value).all()
    }


def _farthest(values: dict[str, float]) -> tuple[str, str, float]:
    """The highest group, the lowest, and the difference of their values, of those that have one."""
    defined = {group: value for group, value in values.items() if not np.isnan(value)}
    if len(defined) < 2:
        return "", "", float("nan")
    highest, lowest = max(defined, key=defined.__getitem__), min(defined, key=defined.__getitem__)
    return highest, lowest, float(defined[highest] - defined[lowest])


def _age_band(ages: pd.Series) -> NDArray[np.object_]:
    years = ages.to_numpy(np.float64, na_value=np.nan)
    band = np.searchsorted(list(AGE_BANDS.values()), years, side="right") - 1
    names = np.array(list(AGE_BANDS), object)
    # Sorting puts nan after all numbers, into the last band.
    return np.where(np.isnan(years), UNKNOWN, names[band])


def _value(values: pd.Series) -> NDArray[np.object_]:
    return values.fillna("").replace("", UNKNOWN).to_numpy(object)
