"""ROC, precision-recall and reliability curves of each class, for the plots and the report."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import reliability
from cxr.evaluation.metrics import Labels, Scores, class_column, has_both_classes

# Points kept of a curve: enough for a smooth plot, and few enough for files in git.
MAX_POINTS = 200
CurveTables = dict[str, pd.DataFrame]  # by class; x and y are the two columns
Points = tuple[NDArray[np.float64], NDArray[np.float64]]


class Curves(NamedTuple):
    """The curves of each class, by its name."""

    roc: CurveTables  # false_positive_rate, true_positive_rate
    precision_recall: CurveTables  # recall, precision
    reliability_before: CurveTables  # mean_predicted, observed and images of each bin, before calibration
    reliability_after: CurveTables  # after calibration


def compute_curves(labels: Labels, probabilities: Scores, calibrated: Scores, bins: int) -> Curves:
    """Compute the curves; those of ROC, precision and recall are from probabilities before calibration.

    Args:
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        probabilities: float [images, 15], before calibration.
        calibrated: float [images, 15], after calibration.
        bins: number of bins of the reliability curves.
    """
    return Curves(
        roc_curves(labels, probabilities),
        precision_recall_curves(labels, probabilities),
        _reliability_curves(labels, probabilities, bins),
        _reliability_curves(labels, calibrated, bins),
    )


def roc_curves(labels: Labels, scores: Scores) -> CurveTables:
    """Return false_positive_rate and true_positive_rate of each class; no rows without positives or negatives."""

    def points(truth: Labels, score: Scores) -> Points:
        false_positive_rate, true_positive_rate, _ = roc_curve(truth, score)
        return false_positive_rate, true_positive_rate

    return _curves(points, ("false_positive_rate", "true_positive_rate"), labels, scores)


def precision_recall_curves(labels: Labels, scores: Scores) -> CurveTables:
    """Return recall and precision of each class; no rows without positives or negatives."""

    def points(truth: Labels, score: Scores) -> Points:
        precision, recall, _ = precision_recall_curve(truth, score)
        return recall[::-1], precision[::-1]

    return _curves(points, ("recall", "precision"), labels, scores)


def _curves(
    points: Callable[[Labels, Scores], Points], columns: tuple[str, str], labels: Labels, scores: Scores
) -> CurveTables:
    curves = {name: pd.DataFrame(columns=list(columns), dtype=float) for name in CLASSES}
    for column in np.flatnonzero(has_both_classes(labels)):
        table = np.stack(points(*class_column(column, labels, scores)), axis=1)
        kept = np.unique(np.linspace(0, len(table) - 1, MAX_POINTS).round().astype(int))
        curves[CLASSES[column]] = pd.DataFrame(table[kept], columns=list(columns))
    return curves


def _reliability_curves(labels: Labels, probabilities: Scores, bins: int) -> CurveTables:
    return {name: reliability(labels[:, column], probabilities[:, column], bins) for column, name in enumerate(CLASSES)}
