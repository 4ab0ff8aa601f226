"""Thresholds chosen on validation by a named rule. A class is called where its score is at or above its threshold."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.evaluation.metrics import Labels, PerClass, Scores, has_both_classes, label_mask, of_class, positives

Rule = Literal["f1", "youden", "sensitivity"]
DEFAULT_THRESHOLD = 0.5


def choose_thresholds(rule: Rule, labels: Labels, scores: Scores, sensitivity: float) -> PerClass:
    """The threshold of each class, float64 [classes], by `rule`, on images of validation.

    A class without positives or without negatives, where no threshold is better than another, gets `UNDECIDED`;
    `both_values(labels)` says which these are. A class that no image has a label of gets nan, and is never called.

    Args:
        rule: f1 (highest F1), youden (highest sensitivity + specificity - 1: Youden 1950, "Index for rating diagnostic
            tests") or sensitivity (the highest threshold that reaches `sensitivity`).
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        scores: float [images, classes].
        sensitivity: above 0 and up to 1; used by the rule of that name only.

    Raises:
        ValueError: where there is no such rule, or no such sensitivity.
    """
    decided = has_both_classes(labels)
    thresholds = np.where(label_mask(labels).any(axis=0), DEFAULT_THRESHOLD, np.nan)
    thresholds[decided] = _by_rule(rule, labels[:, decided], scores[:, decided], sensitivity)
    return thresholds


def best_f1_thresholds(labels: Labels, scores: Scores) -> PerClass:
    """The score at and above which to call each class, so that F1 is highest; 0.5 where there are no positives."""
    thresholds = np.full(labels.shape[1], 0.5)
    for column in np.flatnonzero(positives(labels)):
        precision, recall, candidates = precision_recall_curve(*of_class(column, labels, scores))
        # The curve's last point has no threshold; at 0 / 0 F1 is 0.
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[column] = candidates[np.argmax(f1[:-1])]
    return thresholds


def _by_rule(rule: Rule, labels: Labels, scores: Scores, sensitivity: float) -> PerClass:
    if rule == "f1":
        return best_f1_thresholds(labels, scores)
    if rule == "youden":
        return _each(_highest_youden, labels, scores)
    if rule != "sensitivity":
        raise ValueError(f"no rule is called {rule!r}; there are f1, youden and sensitivity")
    if not 0 < sensitivity <= 1:
        raise ValueError(f"a sensitivity is above 0 and up to 1, not {sensitivity}")
    return _each(lambda truth, score: _reaching(sensitivity, truth, score), labels, scores)


def _each(threshold: Callable[[Labels, Scores], float], labels: Labels, scores: Scores) -> PerClass:
    return np.array([threshold(*of_class(column, labels, scores)) for column in range(labels.shape[1])], np.float64)


def _highest_youden(truth: Labels, score: Scores) -> float:
    """The highest of the best thresholds; never above all scores, which the curve starts with and JSON lacks."""
    false_positive_rate, true_positive_rate, candidates = roc_curve(truth, score)
    return float(candidates[1:][np.argmax((true_positive_rate - false_positive_rate)[1:])])


def _reaching(sensitivity: float, truth: Labels, score: Scores) -> float:
    """The score of the positive at which, counted from the highest, enough are called."""
    falling = np.sort(score[truth == 1])[::-1]
    # Compared as shares: how many are enough, 0.7 · 10, would come out as 7.000000000000001.
    reached = np.arange(1, len(falling) + 1) / len(falling)
    return float(falling[np.argmax(reached >= sensitivity)])
