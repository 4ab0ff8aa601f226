"""Choose thresholds on validation. An image is predicted positive if its score is at or above the threshold."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.evaluation.metrics import Labels, PerClass, Scores, class_column, has_both_classes, label_mask, positives

Rule = Literal["f1", "youden", "sensitivity"]
DEFAULT_THRESHOLD = 0.5


def choose_thresholds(rule: Rule, labels: Labels, scores: Scores, sensitivity: float) -> PerClass:
    """Choose the threshold of each class by `rule` on the validation images.

    Args:
        rule: f1 (maximum F1), youden (maximum sensitivity + specificity - 1: Youden 1950, "Index for rating diagnostic
            tests") or sensitivity (the highest threshold with at least the required sensitivity).
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        scores: float [images, classes].
        sensitivity: the required sensitivity, above 0 and up to 1; used by the rule sensitivity only.

    Returns:
        float64 [classes]; `DEFAULT_THRESHOLD` for a class without positives or without negatives, and nan, which
        predicts no positives, for a class without labels.

    Raises:
        ValueError: if there is no such rule, or the sensitivity is out of range.
    """
    defined = has_both_classes(labels)
    thresholds = np.where(label_mask(labels).any(axis=0), DEFAULT_THRESHOLD, np.nan)
    thresholds[defined] = _by_rule(rule, labels[:, defined], scores[:, defined], sensitivity)
    return thresholds


def best_f1_thresholds(labels: Labels, scores: Scores) -> PerClass:
    """Return the threshold of maximum F1 of each class; `DEFAULT_THRESHOLD` without positives."""
    thresholds = np.full(labels.shape[1], DEFAULT_THRESHOLD)
    for column in np.flatnonzero(positives(labels)):
        precision, recall, candidates = precision_recall_curve(*class_column(column, labels, scores))
        # The curve's last point has no threshold. F1 is 0 at 0 / 0.
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[column] = candidates[np.argmax(f1[:-1])]
    return thresholds


def _by_rule(rule: Rule, labels: Labels, scores: Scores, sensitivity: float) -> PerClass:
    if rule == "f1":
        return best_f1_thresholds(labels, scores)
    if rule == "youden":
        return _for_each_class(_youden_threshold, labels, scores)
    if rule != "sensitivity":
        raise ValueError(f"unknown rule {rule!r}; use f1, youden or sensitivity")
    if not 0 < sensitivity <= 1:
        raise ValueError(f"the sensitivity must be above 0 and at most 1, not {sensitivity}")
    return _for_each_class(lambda truth, score: _sensitivity_threshold(sensitivity, truth, score), labels, scores)


def _for_each_class(threshold: Callable[[Labels, Scores], float], labels: Labels, scores: Scores) -> PerClass:
    return np.array([threshold(*class_column(column, labels, scores)) for column in range(labels.shape[1])], np.float64)


def _youden_threshold(truth: Labels, score: Scores) -> float:
    """Return the highest threshold of maximum Youden index, without the curve's first one, which is infinite."""
    false_positive_rate, true_positive_rate, candidates = roc_curve(truth, score)
    return float(candidates[1:][np.argmax((true_positive_rate - false_positive_rate)[1:])])


def _sensitivity_threshold(sensitivity: float, truth: Labels, score: Scores) -> float:
    """Return the highest threshold with at least the required sensitivity."""
    falling = np.sort(score[truth == 1])[::-1]
    # Fractions are compared, since a product such as 0.7 · 10 is 7.000000000000001.
    reached = np.arange(1, len(falling) + 1) / len(falling)
    return float(falling[np.argmax(reached >= sensitivity)])
