"""Measures of multi-label predictions, class by class. A class with one value only has no AUROC: nan, never 0.

Labels are uint8 [images, classes]: 0, 1, or `UNKNOWN`, which no measure counts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr.core.labels import UNKNOWN

Labels = NDArray[np.uint8]
Scores = NDArray[np.floating[Any]]
PerClass = NDArray[np.float64]


def label_mask(labels: Labels) -> NDArray[np.bool_]:
    """Which of `labels` are 0 or 1: bool, in their shape."""
    return labels != UNKNOWN


def positives(labels: Labels) -> NDArray[np.int64]:
    """How many images have each class, int [classes]."""
    return np.count_nonzero(labels == 1, axis=0)


def negatives(labels: Labels) -> NDArray[np.int64]:
    """How many images are known not to have each class, int [classes]."""
    return np.count_nonzero(labels == 0, axis=0)


def has_both_classes(labels: Labels) -> NDArray[np.bool_]:
    """Which columns of `labels`, [images, classes], have positives and negatives: bool [classes]."""
    return (positives(labels) > 0) & (negatives(labels) > 0)


def auroc(labels: Labels, scores: Scores) -> PerClass:
    """Area under the ROC curve of each class, float [classes]; nan where `labels` has one value only."""
    return _by_class(roc_auc_score, labels, scores)


def average_precision(labels: Labels, scores: Scores) -> PerClass:
    """Average precision of each class, float [classes]; nan where `labels` has one value only."""
    return _by_class(average_precision_score, labels, scores)


def nanmean(values: PerClass) -> float:
    """Mean of the values that are not nan; nan where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def accuracy(labels: Labels, decisions: NDArray[np.bool_]) -> PerClass:
    """Share of images decided rightly, of each class: float [classes]; nan where none is known."""
    with np.errstate(invalid="ignore"):
        right: PerClass = (labels == decisions).sum(axis=0) / label_mask(labels).sum(axis=0)
    return right


def confusion(labels: Labels, decisions: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts of each class: true negatives, false positives, false negatives, true positives, int [classes, 4]."""
    outcome = np.where(label_mask(labels), 2 * labels.astype(np.int64) + decisions, -1)
    return np.stack([(outcome == kind).sum(axis=0) for kind in range(4)], axis=1)


def precision_recall_f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Precision, recall and F1 of each class from `confusion`, float [classes, 3].

    All three are nan where the class has no positives, and precision where nothing was called positive (0 / 0).
    """
    _, false_positives, false_negatives, true_positives = counts.T
    with np.errstate(invalid="ignore"):
        precision = true_positives / (true_positives + false_positives)
        recall = true_positives / (true_positives + false_negatives)
        f1 = 2 * true_positives / (2 * true_positives + false_positives + false_negatives)
    without_positives = np.isnan(recall)
    return np.where(without_positives[:, None], np.nan, np.stack([precision, recall, f1], axis=1))


def of_class(column: int | np.integer[Any], labels: Labels, scores: Scores) -> tuple[Labels, Scores]:
    """Labels and scores of one class, [images], of the images that it is known of."""
    ours = label_mask(labels[:, column])
    return labels[ours, column], scores[ours, column]


def _by_class(measure: Callable[[Labels, Scores], float], labels: Labels, scores: Scores) -> PerClass:
    values = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(has_both_classes(labels)):
        values[column] = measure(*of_class(column, labels, scores))
    return values
