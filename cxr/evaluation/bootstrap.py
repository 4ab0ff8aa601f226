"""The bootstrap over patients: confidence intervals and paired comparisons.

Images of one patient are correlated, so patients are drawn with replacement, each with all of its images; drawing
images would give intervals that are too narrow. A bootstrap sample is stored as counts: each image has the weight of
its patient. Every metric, class, subgroup and network is computed on the same samples, so that they can be compared
sample by sample. The seed determines the samples.

`python -m benchmarks.coverage` measures the coverage of the intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit
from scipy.stats import beta

from cxr.evaluation.metrics import PerClass, nanmean

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]

# Significance level of the tests; intervals have the confidence level 1 - ALPHA.
ALPHA = 0.05


@dataclass(frozen=True)
class BootstrapSamples:
    """Bootstrap samples of patients.

    Attributes:
        counts: uint8 [1 + samples, patients], how often each patient was drawn. Row 0 is the original sample, with each
            patient once. (The probability that one patient is drawn more than 255 times is below 1 / 256!.)
        patient: column of `counts` of the patient of each image, int [images].
    """

    counts: Counts
    patient: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of bootstrap samples, without the original sample."""
        return len(self.counts) - 1

    def subset(self, rows: NDArray[Any]) -> Self:
        """Return the same samples for the images at `rows`, indices or a mask: a subgroup, or the labelled images."""
        return type(self)(self.counts, self.patient[rows])

    def count_patients(self, images: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of patients with an image in the mask `images`, bool [images, classes]: int [classes]."""
        return (self.sums(images) > 0).sum(axis=0)

    def sums(self, images: NDArray[Any]) -> Floats:
        """Return the sums of `images` [images, classes] over each patient's images, float [patients, classes]."""
        patients = self.counts.shape[1]
        return np.stack([np.bincount(self.patient, column, patients) for column in images.T], axis=1)


def bootstrap_patients(patients: ArrayLike, samples: int, seed: int) -> BootstrapSamples:
    """Draw `samples` bootstrap samples, each of as many patients as there are.

    Args:
        patients: the patient of each image, [images].
        samples: number of bootstrap samples.
        seed: seed of the random generator.
    """
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    random = np.random.default_rng(seed)
    counts = np.ones((1 + samples, len(names)), np.uint8)
    for row in counts[1:]:
        row[:] = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
    return BootstrapSamples(counts, patient)


@dataclass(frozen=True)
class BootstrapDistribution:
    """A metric between 0 and 1 of each class, in the original sample and in each bootstrap sample.

    Attributes:
        value: in the original sample, float [classes]; nan if undefined.
        samples: in the bootstrap samples, float [samples, classes]; nan if undefined, such as the AUROC of a class
            without positives in a bootstrap sample.
        dof: degrees of freedom of the variance of `samples`, the number of contributing patients less one, float
            [classes].
    """

    value: PerClass
    samples: Floats
    dof: PerClass

    def mean(self, columns: Sequence[int]) -> Self:
        """Return the mean over `columns` as a metric of one class.

        Classes that are undefined in the original sample are left out. The mean in a bootstrap sample is over the
        classes defined in it, so that a rare class does not exclude samples (it widens the interval slightly). The
        degrees of freedom are those of Welch and Satterthwaite, (Σ v)² / Σ (v² / f), from the classes' variances v and
        degrees of freedom f.
        """
        chosen = [column for column in columns if not np.isnan(self.value[column])]
        samples = np.array([nanmean(row) for row in self.samples[:, chosen]])
        variance = np.array([_variance(self.samples[:, column]) for column in chosen])
        parts = float((variance**2 / np.maximum(self.dof[chosen], 1)).sum())
        dof = float(variance.sum()) ** 2 / parts if parts else np.nan
        return type(self)(np.array([nanmean(self.value[chosen])]), samples[:, None], np.array([dof]))

    def interval(self) -> Floats:
        """Return the 95 % confidence interval of each class, low and high, float [classes, 2].

        On the logit scale, the value plus and minus Student's t times the standard deviation of the bootstrap samples
        in which the class is defined. Percentile intervals are simpler, but with ten positive patients at an AUROC of
        0.9 their coverage is about 83 %; that of these is about 97 %. A sample value of exactly 0 or 1, which has no
        logit, is moved halfway to the next value. The interval is nan if the value is undefined, if it depends on one
        patient only, or if all samples are equal, as at an AUROC of 1.
        """
        columns = zip(self.value, self.samples.T, self.dof, strict=True)
        return np.array([_logit_interval(value, samples, dof) for value, samples, dof in columns])


class Proportion(BootstrapDistribution):
    """A mean of values from 0 to 1 over images, such as a sensitivity."""

    def interval(self) -> Floats:
        """Return the 95 % confidence interval of each class, low and high, float [classes, 2].

        Where the bootstrap gives none, because all samples are equal or a single patient contributes, it is that of
        Clopper and Pearson (The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26, 1934) for as many trials as patients contribute. Images of one patient count once there, so the
        interval is conservative.
        """
        intervals, patients = super().interval(), self.dof + 1
        undefined = np.isnan(intervals[:, 0]) & ~np.isnan(self.value) & (patients >= 1)
        intervals[undefined] = clopper_pearson(self.value[undefined], patients[undefined])
        return intervals


def clopper_pearson(value: PerClass, trials: PerClass) -> Floats:
    """Return the exact 95 % interval of the proportion `value` of `trials`, low and high, float [classes, 2]."""
    hits, misses = value * trials, (1 - value) * trials
    low = np.where(hits > 0, beta.ppf(ALPHA / 2, hits, misses + 1), 0)
    high = np.where(misses > 0, beta.ppf(1 - ALPHA / 2, hits + 1, misses), 1)
    return np.stack([low, high], axis=1)


def concatenate(*distributions: BootstrapDistribution) -> BootstrapDistribution:
    """Concatenate distributions along the classes."""
    return BootstrapDistribution(
        np.concatenate([one.value for one in distributions]),
        np.hstack([one.samples for one in distributions]),
        np.concatenate([one.dof for one in distributions]),
    )


def proportion(chosen: NDArray[np.bool_], among: NDArray[np.bool_], samples: BootstrapSamples) -> Proportion:
    """Return the proportion of `chosen` among the images `among`, both bool [images, classes]; nan at 0 / 0.

    With predictions and labels: sensitivity is (predictions, labels), specificity (~predictions, ~labels), PPV (labels,
    predictions), NPV (~labels, ~predictions), accuracy (predictions == labels, all). Degrees of freedom: patients with
    an image in `among`, less one.
    """
    return average(chosen, among, samples)


def average(values: NDArray[Any], among: NDArray[np.bool_], samples: BootstrapSamples) -> Proportion:
    """Return the mean of `values`, from 0 to 1, over the images `among`, both [images, classes]; see `proportion`."""
    counts = samples.counts.astype(np.float64)
    with np.errstate(invalid="ignore"):
        means = counts @ samples.sums(np.where(among, values, 0)) / (counts @ samples.sums(among))
    return Proportion(means[0], means[1:], samples.count_patients(among).astype(np.float64) - 1)


class PairedComparison(NamedTuple):
    """The second metric less the first for each class, with 95 % interval and p-value, each float [classes]."""

    value: PerClass
    low: PerClass
    high: PerClass
    p_value: PerClass


def difference(first: BootstrapDistribution, second: BootstrapDistribution) -> PairedComparison:
    """Compare two metrics on the same bootstrap samples, class by class.

    p = (1 + samples whose difference is at least as far from the observed difference as that is from 0) /
    (1 + samples): two-sided, with the bootstrap distribution shifted to the null hypothesis (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 4.4). The interval is the difference plus and minus the
    distance at which p reaches 0.05, so that it excludes 0 if and only if p is at most 0.05. Samples in which the
    difference is undefined are left out. Everything is nan if the difference is undefined in the original sample, or if
    fewer than 19 samples remain.
    """
    value = second.value - first.value
    columns = zip(value, (second.samples - first.samples).T, strict=True)
    margin, p_value = np.array([_margin_and_p_value(*column) for column in columns]).T
    return PairedComparison(value, value - margin, value + margin, p_value)


def holm(p_values: PerClass) -> PerClass:
    """Apply Holm's correction for as many comparisons as there are p-values that are not nan; nan stays nan.

    The k-th smallest of m p-values is multiplied by m - k + 1, and is at least the corrected smaller ones (Holm, A
    simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values, kind="stable")[: np.count_nonzero(~np.isnan(p_values))]
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _variance(values: Floats) -> float:
    defined = _defined(values)
    return float(defined.var()) if len(defined) else 0.0


def _logit_interval(value: float, samples: Floats, dof: float) -> Floats:
    samples = _defined(samples)
    inside = samples[(samples > 0) & (samples < 1)]
    if np.isnan(value) or not dof >= 1 or not len(inside) or np.ptp(samples) == 0:
        return np.full(2, np.nan)
    lowest, highest = inside.min() / 2, (1 + inside.max()) / 2
    deviation = logit(samples.clip(lowest, highest)).std(ddof=1)
    margin = stdtrit(dof, 1 - ALPHA / 2) * deviation
    interval: Floats = expit(logit(np.clip(value, lowest, highest)) + np.array([-margin, margin]))
    return interval


def _margin_and_p_value(value: float, samples: Floats) -> tuple[float, float]:
    deviations = np.sort(np.abs(_defined(samples) - value))[::-1]
    furthest = int(ALPHA * (1 + len(deviations)))
    if np.isnan(value) or furthest == 0:
        return np.nan, np.nan
    at_least_as_far = np.count_nonzero(deviations >= abs(value))
    return deviations[furthest - 1], (1 + at_least_as_far) / (1 + len(deviations))
