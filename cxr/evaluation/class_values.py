"""Metrics by class in the form of the files in `metrics/`: means over classes, and values with intervals by name."""

from collections.abc import Iterable

from cxr.core.labels import CLASSES, FINDINGS
from cxr.evaluation.bootstrap import BootstrapDistribution, concatenate
from cxr.evaluation.schema import Interval, nan_to_none

# The columns of each mean.
MEANS = {
    "mean_15": list(range(len(CLASSES))),
    "mean_14": [column for column, name in enumerate(CLASSES) if name in FINDINGS],
}


def means(by_class: BootstrapDistribution) -> BootstrapDistribution:
    """Return the means of a metric of the 15 classes, in the order of `MEANS`."""
    return concatenate(*(by_class.mean(columns) for columns in MEANS.values()))


def with_means(by_class: BootstrapDistribution) -> BootstrapDistribution:
    """Return the means of a metric of the 15 classes, followed by the classes."""
    return concatenate(means(by_class), by_class)


def with_ci(names: Iterable[str], distribution: BootstrapDistribution) -> dict[str, Interval]:
    """Return value and confidence interval of each class of `distribution`, by its name in `names`."""
    columns = zip(names, distribution.value, distribution.interval(), strict=True)
    return {
        name: Interval(value=nan_to_none(value), low=nan_to_none(low), high=nan_to_none(high))
        for name, value, (low, high) in columns
    }
