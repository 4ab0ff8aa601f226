"""AUROC and average precision in every bootstrap sample, from one ranking of the images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.core.progress import progress
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, Counts, Floats
from cxr.evaluation.metrics import Labels, Scores, label_mask

# Images times bootstrap samples that are processed at once: a few MB, which fit in the processor's cache.
CHUNK_VALUES = 2**18


def auroc_and_average_precision(
    labels: Labels, scores: Scores, samples: BootstrapSamples
) -> tuple[BootstrapDistribution, BootstrapDistribution]:
    """Compute AUROC and average precision of each class.

    The values are those of scikit-learn's roc_auc_score and average_precision_score with the counts as sample_weight,
    ties included, exact up to the last division, since all sums are of integers. They are nan if a class has no
    positives or no negatives. Degrees of freedom: patients with a positive or patients with a negative, whichever are
    fewer, less one.

    Args:
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        scores: float [images, classes].
        samples: bootstrap samples of the same images.
    """
    rarer = np.minimum(samples.count_patients(labels == 1), samples.count_patients(labels == 0))
    dof = rarer.astype(np.float64) - 1
    classes = zip(labels.T, scores.T, label_mask(labels).T, strict=True)
    by_class = [
        _rank(label[mask], score[mask], samples.subset(mask))
        for label, score, mask in progress(classes, "bootstrap", labels.shape[1], "classes")
    ]
    areas, precisions = (np.stack(values, axis=1) for values in zip(*by_class, strict=True))
    return BootstrapDistribution(areas[0], areas[1:], dof), BootstrapDistribution(precisions[0], precisions[1:], dof)


class _Ranking(NamedTuple):
    """The images of a class in descending order of score, in groups of equal scores.

    Only groups with a positive are kept: the others contribute to neither metric.
    """

    patient: NDArray[np.intp]  # of each image
    positive_patient: NDArray[np.intp]  # of each positive image
    starts: NDArray[np.intp]  # number of images before each group
    ends: NDArray[np.intp]  # number of images before the end of each group
    positive_starts: NDArray[np.intp]  # number of positives before each group
    positive_ends: NDArray[np.intp]  # number of positives before the end of each group


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


def _rank(label: Labels, score: Scores, samples: BootstrapSamples) -> tuple[Floats, Floats]:
    """Return AUROC and average precision of one class for each row of the counts."""
    ranking = _ranking(label, score, samples.patient)
    step = max(1, CHUNK_VALUES // max(1, len(label)))
    rows = range(0, len(samples.counts), step)
    chunks = [_rank_chunk(ranking, samples.counts[row : row + step]) for row in rows]
    areas, precisions = zip(*chunks, strict=True)
    return np.concatenate(areas), np.concatenate(precisions)


def _rank_chunk(ranking: _Ranking, counts: Counts) -> tuple[Floats, Floats]:
    """Return AUROC and average precision for some rows of the counts.

    AUROC is the fraction of correctly ordered pairs, ties counting half; average precision is Σ precision · Δ recall.
    Everything except the last two divisions and the precision is an integer, exact in float64 below 2⁵³.
    """
    all_above = _running_sums(counts, ranking.patient)
    positives_above = _running_sums(counts, ranking.positive_patient)
    hits = positives_above[:, ranking.positive_ends].astype(np.float64)
    hits_above = positives_above[:, ranking.positive_starts]
    predicted_positive = all_above[:, ranking.ends]
    new_hits = hits - hits_above
    false_positives_twice = (predicted_positive - hits) + (all_above[:, ranking.starts] - hits_above)
    positives = positives_above[:, -1].astype(np.float64)
    negatives = all_above[:, -1] - positives
    with np.errstate(invalid="ignore"):
        area = 1 - (new_hits * false_positives_twice).sum(axis=1) / (2 * positives * negatives)
        precision = (new_hits * hits / np.maximum(predicted_positive, 1)).sum(axis=1) / positives
    return area, np.where(negatives > 0, precision, np.nan)


def _running_sums(counts: Counts, patient: NDArray[np.intp]) -> NDArray[np.int32]:
    """Return the weights of the first 0, 1, 2, … images for each row of `counts`, int32 [rows, 1 + images]."""
    sums = np.zeros((len(counts), 1 + len(patient)), np.int32)
    np.cumsum(np.take(counts, patient, axis=1), axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums
