"""Metrics of multi-label predictions for each class; undefined values, such as an AUROC without positives, are nan.

Labels are uint8 [images, classes]: 0, 1, or `UNKNOWN`, which is ignored.
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
    """Return the mask of labels that are 0 or 1, bool, in the shape of `labels`."""
    return labels != UNKNOWN


def positives(labels: Labels) -> NDArray[np.int64]:
    """Return the number of positive images, int [classes]."""
    return np.count_nonzero(labels == 1, axis=0)


def negatives(labels: Labels) -> NDArray[np.int64]:
    """Return the number of negative images, int [classes]."""
    return np.count_nonzero(labels == 0, axis=0)


def has_both_classes(labels: Labels) -> NDArray[np.bool_]:
    """Return the mask of classes with both positives and negatives, bool [classes]."""
    return (positives(labels) > 0) & (negatives(labels) > 0)


def auroc(labels: Labels, scores: Scores) -> PerClass:
    """Return the area under the ROC curve, float [classes]; nan without positives or without negatives."""
    return _by_class(roc_auc_score, labels, scores)


def average_precision(labels: Labels, scores: Scores) -> PerClass:
    """Return the average precision, float [classes]; nan without positives or without negatives."""
    return _by_class(average_precision_score, labels, scores)


def nanmean(values: PerClass) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def accuracy(labels: Labels, predicted_positive: NDArray[np.bool_]) -> PerClass:
    """Return the fraction of correctly predicted images, float [classes]; nan without labels."""
    with np.errstate(invalid="ignore"):
        correct: PerClass = (labels == predicted_positive).sum(axis=0) / label_mask(labels).sum(axis=0)
    return correct


def confusion(labels: Labels, predicted_positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count true negatives, false positives, false negatives and true positives, int [classes, 4]."""
    outcome = np.where(label_mask(labels), 2 * labels.astype(np.int64) + predicted_positive, -1)
    return np.stack([(outcome == kind).sum(axis=0) for kind in range(4)], axis=1)


def precision_recall_f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute precision, recall and F1 from the result of `confusion`, float [classes, 3].

    All three are nan without positives, and precision is nan without predicted positives (0 / 0).
    """
    _, false_positives, false_negatives, true_positives = counts.T
    with np.errstate(invalid="ignore"):
        precision = true_positives / (true_positives + false_positives)
        recall = true_positives / (true_positives + false_negatives)
        f1 = 2 * true_positives / (2 * true_positives + false_positives + false_negatives)
    without_positives = np.isnan(recall)
    return np.where(without_positives[:, None], np.nan, np.stack([precision, recall, f1], axis=1))


def class_column(column: int | np.integer[Any], labels: Labels, scores: Scores) -> tuple[Labels, Scores]:
    """Return labels and scores of one class, [images], for the images with a label of it."""
    mask = label_mask(labels[:, column])
    return labels[mask, column], scores[mask, column]


def _by_class(metric: Callable[[Labels, Scores], float], labels: Labels, scores: Scores) -> PerClass:
    values = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(has_both_classes(labels)):
        values[column] = metric(*class_column(column, labels, scores))
    return values
