"""Error rates at the thresholds by sex, age group and view position.

A false positive of No Finding is an abnormal image that is predicted to be normal: underdiagnosis (Seyyed-Kalantari et
al., Underdiagnosis bias of artificial intelligence algorithms applied to chest radiographs in under-served patient
populations, Nature Medicine 27, 2021). It is also given for the intersections of two attributes.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from cxr.core.labels import CLASSES, NO_FINDING
from cxr.evaluation.bootstrap import ALPHA, BootstrapDistribution, BootstrapSamples, holm, proportion
from cxr.evaluation.metrics import Labels, PerClass
from cxr.evaluation.schema import Fairness, GroupRate, GroupRates, nan_to_none
from cxr.evaluation.subgroups import MIN_IMAGES_PER_LABEL, UNKNOWN_GROUP, Mask, groups


class _Comparison(NamedTuple):
    """A rate of a group and of the other images, each a value for each class."""

    group: BootstrapDistribution
    rest: BootstrapDistribution
    images: NDArray[np.int64]  # of the group that the rate is over


def group_rates(
    table: pd.DataFrame, labels: Labels, predicted_positive: NDArray[np.bool_], samples: BootstrapSamples
) -> Fairness:
    """Compute true and false positive rates of each group, and compare each with those of the other images.

    A rate needs `MIN_IMAGES_PER_LABEL` positives (true positive rate) or negatives (false positive rate) in the group
    and in the rest. Images of unknown sex, age or view position are left out. p-values are two-sided, of Student's t
    with the standard deviation of the difference over the bootstrap samples, and corrected by Holm's method for all
    comparisons of the file.

    Args:
        table: with the columns sex, age and view.
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        predicted_positive: bool [images, 15].
        samples: bootstrap samples of the same images.
    """
    masks = {group: mask for group, mask in groups(table).items() if group[1] != UNKNOWN_GROUP}
    of_groups = {
        (*group, rate): _compare(predicted_positive, labels == value, *_group_and_rest(masks, group), samples)
        for group in masks
        for rate, value in (("true_positive_rate", 1), ("false_positive_rate", 0))
    }
    normal = [CLASSES.index(NO_FINDING)]
    of_intersections = {
        (attributes, name, ""): _compare(predicted_positive[:, normal], labels[:, normal] == 0, mask, rest, samples)
        for attributes, name, mask, rest in _intersections(masks)
    }
    rates = _with_p_values({**of_groups, **of_intersections})
    by_attribute: dict[str, dict[str, GroupRates]] = {}
    for (attribute, name), mask in masks.items():
        by_attribute.setdefault(attribute, {})[name] = GroupRates(
            images=int(mask.sum()),
            true_positive_rate=rates[attribute, name, "true_positive_rate"],
            false_positive_rate=rates[attribute, name, "false_positive_rate"],
        )
    underdiagnosis: dict[str, dict[str, GroupRate]] = {}
    for attributes, name, _ in of_intersections:
        if found := rates[attributes, name, ""]:
            (underdiagnosis.setdefault(attributes, {})[name],) = found.values()
    return Fairness(min_images=MIN_IMAGES_PER_LABEL, groups=by_attribute, underdiagnosis=underdiagnosis)


def _group_and_rest(masks: Mapping[tuple[str, str], Mask], group: tuple[str, str]) -> tuple[Mask, Mask]:
    known = np.logical_or.reduce([mask for (attribute, _), mask in masks.items() if attribute == group[0]])
    return masks[group], known & ~masks[group]


def _intersections(masks: Mapping[tuple[str, str], Mask]) -> Iterator[tuple[str, str, Mask, Mask]]:
    """Yield attributes, names, mask and the mask of the other images for each pair of groups of two attributes."""
    for first, second in combinations(masks, 2):
        (one, others), (other, rest) = _group_and_rest(masks, first), _group_and_rest(masks, second)
        if first[0] != second[0] and others.any() and rest.any():
            known = (one | others) & (other | rest)
            both = masks[first] & masks[second]
            yield f"{first[0]} and {second[0]}", f"{first[1]}, {second[1]}", both, known & ~both


def _compare(
    positive: NDArray[np.bool_], among: NDArray[np.bool_], group: Mask, rest: Mask, samples: BootstrapSamples
) -> _Comparison:
    inside, outside = (proportion(positive[mask], among[mask], samples.subset(mask)) for mask in (group, rest))
    return _Comparison(inside, outside, np.minimum(among[group].sum(axis=0), among[rest].sum(axis=0)))


def _with_p_values(
    comparisons: Mapping[tuple[str, str, str], _Comparison],
) -> dict[tuple[str, str, str], dict[str, GroupRate]]:
    """Return the rates of each comparison by class, with p-values that are corrected for all of them."""
    tests = {key: _t_test(comparison) for key, comparison in comparisons.items()}
    corrected = iter(holm(np.concatenate([test[3] for test in tests.values()])) if tests else ())
    found = {}
    for key, comparison in comparisons.items():
        names = CLASSES if len(comparison.images) == len(CLASSES) else (NO_FINDING,)
        columns = zip(
            names, comparison.group.value, comparison.group.interval(), comparison.rest.value, *tests[key], strict=True
        )
        rows = [(*row, next(corrected)) for row in columns]
        found[key] = {
            name: GroupRate(
                value=nan_to_none(value),
                low=nan_to_none(interval[0]),
                high=nan_to_none(interval[1]),
                rest=nan_to_none(rest),
                difference=nan_to_none(gap),
                difference_low=nan_to_none(low),
                difference_high=nan_to_none(high),
                p_value=nan_to_none(p_value),
                p_holm=nan_to_none(p_holm),
            )
            for name, value, interval, rest, gap, low, high, p_value, p_holm in rows
            if not np.isnan(gap)
        }
    return found


def _t_test(comparison: _Comparison) -> tuple[PerClass, PerClass, PerClass, PerClass]:
    """Return the difference, its interval and its p-value, each float [classes]; nan with too few images."""
    group, rest, images = comparison
    gap = np.where(images >= MIN_IMAGES_PER_LABEL, group.value - rest.value, np.nan)
    gaps = group.samples - rest.samples
    defined = ~np.isnan(gaps)
    count = np.maximum(defined.sum(axis=0), 2)
    centred = np.where(defined, gaps - np.where(defined, gaps, 0).sum(axis=0) / count, 0)
    deviation = np.sqrt((centred**2).sum(axis=0) / (count - 1))
    dof = np.minimum(group.dof, rest.dof)
    usable = (deviation > 0) & (dof >= 1)
    deviation, dof = np.where(usable, deviation, np.nan), np.where(usable, dof, np.nan)
    margin = t.ppf(1 - ALPHA / 2, dof) * deviation
    return gap, gap - margin, gap + margin, 2 * t.sf(np.abs(gap) / deviation, dof)
