"""AUROC in subgroups of patients by sex, age and view position, and the largest gaps between groups."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.labels import CLASSES
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, difference
from cxr.evaluation.class_values import with_ci
from cxr.evaluation.metrics import Labels, PerClass, Scores, negatives, positives
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.schema import AttributeMetrics, Gap, GroupMetrics, Subgroups, nan_to_none

Group = tuple[str, str]  # an attribute and its value, such as ("sex", "F")
Mask = NDArray[np.bool_]

ATTRIBUTES = ("sex", "age", "view")
UNKNOWN_GROUP = "unknown"
# First year of each band: children, whose chests look different, and adults in bands with thousands of NIH's images.
AGE_BANDS = {"under 18": 0, "18-39": 18, "40-59": 40, "60 and over": 60}
# With 10 positives, an AUROC of 0.8 has a standard error of 0.08 (Hanley and McNeil 1982), more if they come from
# few patients.
MIN_IMAGES_PER_LABEL = 10


def subgroup_metrics(table: pd.DataFrame, labels: Labels, scores: Scores, samples: BootstrapSamples) -> Subgroups:
    """Compute the AUROC of each class in each group, and the largest gap between two groups of an attribute.

    A class needs `MIN_IMAGES_PER_LABEL` positives and negatives in a group to have an AUROC there. The mean of a group
    is over the classes that all groups of its attribute have, so that means can be compared; a group without any class
    has no mean. The largest of several gaps is above 0 by chance alone: its interval is that of the difference
    of the two groups, and does not account for their selection.

    Args:
        table: with the columns sex, age and view.
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        scores: float [images, 15].
        samples: bootstrap samples of the same images.
    """
    masks = groups(table)
    aurocs = {group: _group_auroc(mask, labels, scores, samples) for group, mask in masks.items()}
    values = {group: auroc.value for group, auroc in aurocs.items()}
    gaps = largest_gaps(values)
    metrics = {}
    for attribute in dict.fromkeys(attribute for attribute, _ in masks):
        shared = shared_classes(values, attribute)
        by_name = {
            name: _group_metrics(labels[mask], aurocs[of, name], shared)
            for (of, name), mask in masks.items()
            if of == attribute
        }
        rows = gaps[gaps["attribute"] == attribute]
        largest = {
            name: _gap(highest, lowest, name, {group: aurocs[attribute, group] for group in by_name}, shared)
            for name, highest, lowest in zip(rows["class"], rows["highest"], rows["lowest"], strict=True)
        }
        metrics[attribute] = AttributeMetrics(groups=by_name, largest_gap=largest)
    return Subgroups(metrics)


def groups(table: pd.DataFrame) -> dict[Group, Mask]:
    """Return a mask of the images of each group, bool [images].

    The groups of one attribute partition the images. Missing values form the group `UNKNOWN_GROUP`; groups without
    images are left out.

    Args:
        table: with the columns sex, age (years) and view.
    """
    nonempty = {}
    for attribute in ATTRIBUTES:
        values = _age_band(table["age"]) if attribute == "age" else _value(table[attribute])
        order = [*AGE_BANDS, UNKNOWN_GROUP] if attribute == "age" else sorted(set(values))
        masks = {(attribute, value): values == value for value in order}
        nonempty.update({group: mask for group, mask in masks.items() if mask.any()})
    return nonempty


def count_groups(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the number of images of each group of `groups`, by attribute."""
    counts: dict[str, dict[str, int]] = {}
    for (attribute, name), mask in groups(table).items():
        counts.setdefault(attribute, {})[name] = int(mask.sum())
    return counts


def has_enough_images(labels: Labels) -> Mask:
    """Return the classes with at least `MIN_IMAGES_PER_LABEL` positives and as many negatives, bool [classes]."""
    return (positives(labels) >= MIN_IMAGES_PER_LABEL) & (negatives(labels) >= MIN_IMAGES_PER_LABEL)


def shared_classes(values: Mapping[Group, PerClass], attribute: str) -> Mask:
    """Return the classes that are defined in all groups of `attribute`, bool [classes].

    Means of groups can only be compared over these. `UNKNOWN_GROUP` and groups without any value are not considered.
    """
    compared = _compared(values, attribute)
    if not compared:
        return np.zeros(len(next(iter(values.values()))), bool)
    return np.logical_and.reduce([~np.isnan(value) for value in compared.values()])


def largest_gaps(values: Mapping[Group, PerClass]) -> pd.DataFrame:
    """Find the two groups of each attribute with the largest difference, for each of the 15 classes and their mean.

    Args:
        values: of each group, float [15]; nan for undefined classes.

    Returns:
        A row for each attribute and class, with the columns attribute, class, highest and lowest (groups), gap, and
        classes (their number: 1, or for `mean` that of `shared_classes`). If fewer than two groups have a value, the
        groups are empty and the gap is nan. `UNKNOWN_GROUP` is left out.
    """
    rows: list[tuple[str, str, str, str, float, int]] = []
    for attribute in dict.fromkeys(attribute for attribute, _ in values):
        compared = _compared(values, attribute)
        for column, name in enumerate(CLASSES):
            by_value = {group: value[column] for group, value in compared.items()}
            rows.append((attribute, name, *_farthest(by_value), 1))
        shared = shared_classes(values, attribute)
        means = {group: value[shared].mean() for group, value in compared.items() if shared.any()}
        rows.append((attribute, "mean", *_farthest(means), int(shared.sum())))
    return pd.DataFrame(rows, columns=["attribute", "class", "highest", "lowest", "gap", "classes"])


def _group_auroc(mask: Mask, labels: Labels, scores: Scores, samples: BootstrapSamples) -> BootstrapDistribution:
    """Return the AUROC within a group; nan for classes with too few images."""
    auroc, _ = auroc_and_average_precision(labels[mask], scores[mask], samples.subset(mask))
    return replace(auroc, value=np.where(has_enough_images(labels[mask]), auroc.value, np.nan))


def _group_metrics(labels: Labels, auroc: BootstrapDistribution, shared: Mask) -> GroupMetrics:
    in_mean = np.flatnonzero(shared & ~np.isnan(auroc.value)).tolist()
    mean = with_ci(("mean",), auroc.mean(in_mean)) if in_mean else {}
    return GroupMetrics(
        images=len(labels),
        classes_in_mean=len(in_mean),
        positives=dict(zip(CLASSES, positives(labels).tolist(), strict=True)),
        auroc={**mean, **with_ci(CLASSES, auroc)},
    )


def _gap(highest: str, lowest: str, name: str, aurocs: Mapping[str, BootstrapDistribution], shared: Mask) -> Gap:
    """Return the difference between two groups for the class `name` or the mean, with its interval."""
    if not highest:
        return Gap(highest=None, lowest=None, value=None, low=None, high=None)
    first, second = aurocs[lowest], aurocs[highest]
    if name == "mean":
        columns = np.flatnonzero(shared).tolist()
        compared, column = difference(first.mean(columns), second.mean(columns)), 0
    else:
        compared, column = difference(first, second), CLASSES.index(name)
    value, low, high = (nan_to_none(part[column]) for part in (compared.value, compared.low, compared.high))
    return Gap(highest=highest, lowest=lowest, value=value, low=low, high=high)


def _compared(values: Mapping[Group, PerClass], attribute: str) -> dict[str, PerClass]:
    return {
        group: value
        for (of, group), value in values.items()
        if of == attribute and group != UNKNOWN_GROUP and not np.isnan(value).all()
    }


def _farthest(values: dict[str, float]) -> tuple[str, str, float]:
    """Return the groups with the highest and the lowest defined value, and the difference."""
    defined = {group: value for group, value in values.items() if not np.isnan(value)}
    if len(defined) < 2:
        return "", "", float("nan")
    highest, lowest = max(defined, key=defined.__getitem__), min(defined, key=defined.__getitem__)
    return highest, lowest, float(defined[highest] - defined[lowest])


def _age_band(ages: pd.Series) -> NDArray[np.object_]:
    years = ages.to_numpy(np.float64, na_value=np.nan)
    band = np.searchsorted(list(AGE_BANDS.values()), years, side="right") - 1
    names = np.array(list(AGE_BANDS), object)
    # searchsorted puts nan after all numbers, into the last band.
    return np.where(np.isnan(years), UNKNOWN_GROUP, names[band])


def _value(values: pd.Series) -> NDArray[np.object_]:
    return values.fillna("").replace("", UNKNOWN_GROUP).to_numpy(object)
