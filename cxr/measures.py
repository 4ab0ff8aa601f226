"""Measures of multi-label predictions, class by class. A class with one value only has no AUROC: nan, never 0."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Labels = NDArray[np.uint8]
Scores = NDArray[np.floating[Any]]
PerClass = NDArray[np.float64]


def both_values(labels: Labels) -> NDArray[np.bool_]:
    """Which columns of `labels`, [images, classes], have positives and negatives: bool [classes]."""
    positives = labels.sum(axis=0, dtype=np.int64)
    return (positives > 0) & (positives < len(labels))


def auroc(labels: Labels, scores: Scores) -> PerClass:
    """Area under the ROC curve of each class, float [classes]; nan where `labels` has one value only."""
    return _by_class(roc_auc_score, labels, scores)


def average_precision(labels: Labels, scores: Scores) -> PerClass:
    """Average precision of each class, float [classes]; nan where `labels` has one value only."""
    return _by_class(average_precision_score, labels, scores)


def defined_mean(values: PerClass) -> float:
    """Mean of the values that are not nan; nan where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def accuracy(labels: Labels, decisions: NDArray[np.bool_]) -> PerClass:
    """Share of images decided rightly, of each class: float [classes]."""
    right: PerClass = (labels.astype(bool) == decisions).mean(axis=0)
    return right


def confusion(labels: Labels, decisions: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts of each class: true negatives, false positives, false negatives, true positives, int [classes, 4]."""
    outcome = 2 * labels.astype(np.int64) + decisions
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


def best_f1_thresholds(labels: Labels, scores: Scores) -> PerClass:
    """The score at and above which to call each class, so that F1 is highest; 0.5 where there are no positives."""
    thresholds = np.full(labels.shape[1], 0.5)
    for column in np.flatnonzero(labels.any(axis=0)):
        precision, recall, candidates = precision_recall_curve(labels[:, column], scores[:, column])
        # The curve's last point has no threshold; at 0 / 0 F1 is 0.
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[column] = candidates[np.argmax(f1[:-1])]
    return thresholds


def _by_class(measure: Callable[[Labels, Scores], float], labels: Labels, scores: Scores) -> PerClass:
    values = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(both_values(labels)):
        values[column] = measure(labels[:, column], scores[:, column])
    return values
