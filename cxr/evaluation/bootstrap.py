"""Intervals and comparisons by the bootstrap over patients.

Images of one patient resemble each other, so patients are drawn with replacement, each with all of its images; to draw
images would give intervals that are too narrow. What is drawn is kept as counts: an image weighs as often as its
patient was drawn. The same counts serve every measure, class, subgroup and network, so that they can be compared
resample by resample. Everything follows from the seed.

`python -m benchmarks.coverage` measures how often the intervals cover the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit

from cxr.core.progress import progress
from cxr.evaluation.metrics import Labels, PerClass, Scores, label_mask, nanmean

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]

# How far an interval reaches: it covers the truth 95 times in 100, or a true null hypothesis is rejected 5 times.
ALPHA = 0.05
# Resampled images that are handled at once: a few MB, which stay in the processor's cache.
_IMAGES_AT_ONCE = 2**18


@dataclass(frozen=True)
class BootstrapSamples:
    """How often each patient was drawn, and whose each image is.

    Attributes:
        counts: uint8 [1 + resamples, patients]. Row 0 is the sample as it is: each patient once. (That one patient is
            drawn more than 255 times has a probability below 1 / 256!.)
        patient: the column of `counts` that is the patient of each image, int [images].
    """

    counts: Counts
    patient: NDArray[np.intp]

    def of(self, rows: NDArray[Any]) -> Self:
        """The same draws for some of the images: a subgroup, or the images that two networks share."""
        return type(self)(self.counts, self.patient[rows])

    def patients_with(self, images: NDArray[Any]) -> NDArray[np.int64]:
        """How many patients have at least one of the images that are true in `images` [images, classes]: [classes]."""
        return (self.sums(images) > 0).sum(axis=0)

    def sums(self, images: NDArray[Any]) -> Floats:
        """The sum of `images` [images, classes] over each patient: float [patients, classes]."""
        patients = self.counts.shape[1]
        return np.stack([np.bincount(self.patient, column, patients) for column in images.T], axis=1)


def bootstrap_patients(patients: ArrayLike, resamples: int, seed: int) -> BootstrapSamples:
    """Draw as many patients as there are, with replacement, `resamples` times.

    Args:
        patients: the patient of each image, [images].
        resamples: how many times.
        seed: the same seed and patients give the same draws.
    """
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    random = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, len(names)), np.uint8)
    for row in counts[1:]:
        row[:] = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
    return BootstrapSamples(counts, patient)


@dataclass(frozen=True)
class BootstrapDistribution:
    """A measure between 0 and 1 of each class, in the sample and in each resample.

    Attributes:
        value: in the sample, float [classes]; nan where it is undefined.
        resampled: in the resamples, float [resamples, classes]; nan where it is undefined, as the AUROC of a class of
            which a resample has no positives.
        freedom: degrees of freedom of the spread of `resampled`: patients that it rests on, less one, float [classes].
    """

    value: PerClass
    resampled: Floats
    freedom: PerClass

    def mean(self, columns: Sequence[int]) -> Self:
        """The mean over `columns`, as a measure of one class.

        A class that is undefined in the sample is left out. A resample's mean is that of the classes defined in it, so
        that a rare class costs no resamples (it widens the interval a little). Degrees of freedom by Welch and
        Satterthwaite, (Σ v)² / Σ (v² / f), of the classes' variances v and degrees of freedom f.
        """
        chosen = [column for column in columns if not np.isnan(self.value[column])]
        resampled = np.array([nanmean(row) for row in self.resampled[:, chosen]])
        variance = np.array([_variance(self.resampled[:, column]) for column in chosen])
        parts = float((variance**2 / np.maximum(self.freedom[chosen], 1)).sum())
        freedom = float(variance.sum()) ** 2 / parts if parts else np.nan
        return type(self)(np.array([nanmean(self.value[chosen])]), resampled[:, None], np.array([freedom]))

    def interval(self) -> Floats:
        """The 95 % interval of each class, low and high, float [classes, 2].

        On the logit scale the value plus and minus Student's t times the standard deviation of the resampled values,
        over those resamples in which the class is defined. Percentiles are simpler, but with ten positive patients at
        an AUROC of 0.9 they cover the truth about 83 times in 100, these about 97. A resampled value of exactly 0
        or 1 has no logit: it counts as halfway to the next value. An interval is nan where the value is undefined,
        where it rests on a single patient, and where all resamples agree, as they do at an AUROC of 1: then the
        bootstrap cannot tell.
        """
        columns = zip(self.value, self.resampled.T, self.freedom, strict=True)
        return np.array([_logit_interval(value, resampled, freedom) for value, resampled, freedom in columns])


def concatenate(*measures: BootstrapDistribution) -> BootstrapDistribution:
    """The classes of several measures side by side, as of the means and of the classes themselves."""
    return BootstrapDistribution(
        np.concatenate([measure.value for measure in measures]),
        np.hstack([measure.resampled for measure in measures]),
        np.concatenate([measure.freedom for measure in measures]),
    )


def auroc_and_average_precision(
    labels: Labels, scores: Scores, resamples: BootstrapSamples
) -> tuple[BootstrapDistribution, BootstrapDistribution]:
    """AUROC and average precision of each class.

    The values are scikit-learn's roc_auc_score and average_precision_score with the draws as sample_weight, ties
    included: exact but for the last division, since whole numbers are summed. Undefined, nan, where a class has no
    positives or no negatives. Degrees of freedom: patients with a positive or patients with a negative, whichever
    are fewer, less one.

    Args:
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        scores: [images, classes], the higher the more likely.
        resamples: of the same images.
    """
    rarer = np.minimum(resamples.patients_with(labels == 1), resamples.patients_with(labels == 0))
    freedom = rarer.astype(np.float64) - 1
    classes = zip(labels.T, scores.T, label_mask(labels).T, strict=True)
    ranked = [
        _rank(label[ours], score[ours], resamples.of(ours))
        for label, score, ours in progress(classes, "resample", labels.shape[1], "classes")
    ]
    areas, precisions = (np.stack(measure, axis=1) for measure in zip(*ranked, strict=True))
    return BootstrapDistribution(areas[0], areas[1:], freedom), BootstrapDistribution(
        precisions[0], precisions[1:], freedom
    )


def proportion(
    chosen: NDArray[np.bool_], among: NDArray[np.bool_], resamples: BootstrapSamples
) -> BootstrapDistribution:
    """The share of `chosen` among the images `among`, both bool [images, classes]; nan at 0 / 0.

    Of decisions about labels: sensitivity is (decisions, labels), specificity (~decisions, ~labels), PPV (labels,
    decisions), NPV (~labels, ~decisions), accuracy (decisions == labels, all). Degrees of freedom: patients with an
    image among them, less one.
    """
    return average(chosen, among, resamples)


def average(values: NDArray[Any], among: NDArray[np.bool_], resamples: BootstrapSamples) -> BootstrapDistribution:
    """The mean of `values`, from 0 to 1, over the images `among`, both [images, classes]; else as `proportion`."""
    counts = resamples.counts.astype(np.float64)
    with np.errstate(invalid="ignore"):
        means = counts @ resamples.sums(np.where(among, values, 0)) / (counts @ resamples.sums(among))
    return BootstrapDistribution(means[0], means[1:], resamples.patients_with(among).astype(np.float64) - 1)


class Difference(NamedTuple):
    """Of each class the second measure less the first, its 95 % interval, and its p-value; each float [classes]."""

    value: PerClass
    low: PerClass
    high: PerClass
    p_value: PerClass


def difference(first: BootstrapDistribution, second: BootstrapDistribution) -> Difference:
    """Compare two measures of the same images in the same resamples, class by class.

    p = (1 + resamples whose difference is at least as far from the sample's difference as that is from 0) /
    (1 + resamples): two-sided, the bootstrap's distribution moved to a true null hypothesis (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 4.4). The interval is the difference plus and minus the
    distance at which p reaches 0.05, so that it leaves out 0 exactly where p is at most 0.05. Resamples in which the
    difference is undefined are left out; all is nan where it is undefined in the sample or fewer than 19 are left.
    """
    value = second.value - first.value
    columns = zip(value, (second.resampled - first.resampled).T, strict=True)
    reach, p_value = np.array([_reach_and_p_value(*column) for column in columns]).T
    return Difference(value, value - reach, value + reach, p_value)


def holm(p_values: PerClass) -> PerClass:
    """Holm's correction for as many comparisons as there are p-values that are not nan; nan stays nan.

    The k-th smallest of m is multiplied by m - k + 1, and none is below one that was smaller (Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


class _Ranking(NamedTuple):
    """The images of a class by falling score, parted where the score changes.

    Only groups of equal scores that hold a positive are kept: no other adds to either measure.
    """

    patient: NDArray[np.intp]  # of each image
    positive_patient: NDArray[np.intp]  # of each positive image
    starts: NDArray[np.intp]  # images above each group
    ends: NDArray[np.intp]  # images in and above it
    positive_starts: NDArray[np.intp]  # positives above it
    positive_ends: NDArray[np.intp]  # positives in and above it


def _ranking(label: Labels, score: Scores, patient: NDArray[np.intp]) -> _Ranking:
    order = np.argsort(-score, kind="stable")
    positive = label[order] > 0
    edges = np.flatnonzero(np.diff(score[order])) + 1
    starts, ends = np.append(0, edges), np.append(edges, len(order))
    positives_above = np.append(0, np.cumsum(positive))
    holds = positives_above[ends] > positives_above[starts]
    starts, ends = starts[holds], ends[holds]
    return _Ranking(
        patient[order], patient[order][positive], starts, ends, positives_above[starts], positives_above[ends]
    )


def _rank(label: Labels, score: Scores, resamples: BootstrapSamples) -> tuple[Floats, Floats]:
    """AUROC and average precision of one class in each row of the counts."""
    ranking = _ranking(label, score, resamples.patient)
    step = max(1, _IMAGES_AT_ONCE // max(1, len(label)))
    rows = range(0, len(resamples.counts), step)
    measures = [_rank_some(ranking, resamples.counts[row : row + step]) for row in rows]
    areas, precisions = zip(*measures, strict=True)
    return np.concatenate(areas), np.concatenate(precisions)


def _rank_some(ranking: _Ranking, counts: Counts) -> tuple[Floats, Floats]:
    """AUROC is the share of pairs in the right order, equal scores half; average precision is Σ precision × Δ recall.

    All but the two last divisions and the precision are whole numbers, which float64 holds exactly below 2⁵³.
    """
    all_above = _running_sums(counts, ranking.patient)
    positives_above = _running_sums(counts, ranking.positive_patient)
    hits = positives_above[:, ranking.positive_ends].astype(np.float64)
    hits_above = positives_above[:, ranking.positive_starts]
    called = all_above[:, ranking.ends]
    new_hits = hits - hits_above
    false_alarms_twice = (called - hits) + (all_above[:, ranking.starts] - hits_above)
    positives = positives_above[:, -1].astype(np.float64)
    negatives = all_above[:, -1] - positives
    with np.errstate(invalid="ignore"):
        area = 1 - (new_hits * false_alarms_twice).sum(axis=1) / (2 * positives * negatives)
        precision = (new_hits * hits / np.maximum(called, 1)).sum(axis=1) / positives
    return area, np.where(negatives > 0, precision, np.nan)


def _running_sums(counts: Counts, patient: NDArray[np.intp]) -> NDArray[np.int32]:
    """How many images the first 0, 1, 2 … come to in each row of `counts`: int32 [rows, 1 + images]."""
    sums = np.zeros((len(counts), 1 + len(patient)), np.int32)
    np.cumsum(np.take(counts, patient, axis=1), axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _variance(values: Floats) -> float:
    defined = _defined(values)
    return float(defined.var()) if len(defined) else 0.0


def _logit_interval(value: float, resampled: Floats, freedom: float) -> Floats:
    resampled = _defined(resampled)
    inside = resampled[(resampled > 0) & (resampled < 1)]
    if np.isnan(value) or not freedom >= 1 or not len(inside) or np.ptp(resampled) == 0:
        return np.full(2, np.nan)
    lowest, highest = inside.min() / 2, (1 + inside.max()) / 2
    spread = logit(resampled.clip(lowest, highest)).std(ddof=1)
    reach = stdtrit(freedom, 1 - ALPHA / 2) * spread
    interval: Floats = expit(logit(np.clip(value, lowest, highest)) + np.array([-reach, reach]))
    return interval


def _reach_and_p_value(value: float, resampled: Floats) -> tuple[float, float]:
    deviations = np.sort(np.abs(_defined(resampled) - value))[::-1]
    furthest = int(ALPHA * (1 + len(deviations)))
    if np.isnan(value) or furthest == 0:
        return np.nan, np.nan
    at_least_as_far = np.count_nonzero(deviations >= abs(value))
    return deviations[furthest - 1], (1 + at_least_as_far) / (1 + len(deviations))
