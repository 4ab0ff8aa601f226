"""Calibration of probabilities by Platt scaling on validation, which keeps ranks and AUROC, and calibration metrics."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cxr.evaluation.metrics import Labels, PerClass, Scores, class_column, label_mask

# Probabilities are clipped to [EPSILON, 1 - EPSILON] before the logit, which is infinite at 0 and 1. At this distance
# from 1, float64 still has 4,500 values left, so that ranks are kept.
EPSILON = 1e-12
# In simulations with 10 positives in 6,000 images, fitting increases the log loss of calibrated probabilities by 1 %,
# and reduces that of miscalibrated ones by 11 to 27 %. Fewer positives may come from one or two patients.
MIN_POSITIVES = 10
SIMULATIONS = 200  # draws of labels; the standard error of the mean error is a few percent of it
# Far above any fit, and far below float64's largest value, so that slope · logit + intercept cannot overflow.
MAX_COEFFICIENT = 1e100


@dataclass(frozen=True, eq=False)
class Calibration:
    """Platt scaling of each class: logit after = slope · logit before + intercept, with a slope above 0.

    Attributes:
        slope: float64 [classes]; 1 for classes that are not fitted.
        intercept: float64 [classes]; 0 for classes that are not fitted.
        not_fitted: for each class the reason if it is not fitted, else ''. Without a fit, probabilities are unchanged.
    """

    slope: PerClass
    intercept: PerClass
    not_fitted: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ValueError if the values would change ranks or overflow."""
        if not self.slope.shape == self.intercept.shape == (len(self.not_fitted),):
            raise ValueError("slope, intercept and not_fitted differ in length")
        if not ((self.slope > 0) & (self.slope <= MAX_COEFFICIENT)).all():
            raise ValueError(f"slopes must be above 0 and at most {MAX_COEFFICIENT:g}")
        if not (np.abs(self.intercept) <= MAX_COEFFICIENT).all():
            raise ValueError(f"intercepts must be between ±{MAX_COEFFICIENT:g}")

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """Mask of the fitted classes, bool [classes]."""
        return np.array([not reason for reason in self.not_fitted], bool)

    def apply(self, probabilities: Scores) -> NDArray[np.float64]:
        """Return the calibrated probabilities, float64 [images, classes]."""
        calibrated = _sigmoid(self.slope * logit(probabilities) + self.intercept)
        return np.where(self.fitted, calibrated, probabilities)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return JSON values, which keep all bits."""
        return {
            "slope": self.slope.tolist(),
            "intercept": self.intercept.tolist(),
            "not_fitted": list(self.not_fitted),
        }


def logit(probabilities: Scores) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) in float64, with p clipped to [`EPSILON`, 1 - `EPSILON`]; any shape."""
    clipped = np.clip(np.asarray(probabilities, np.float64), EPSILON, 1 - EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def fit(labels: Labels, probabilities: Scores) -> Calibration:
    """Fit Platt scaling for each class, on the validation images.

    Slope and intercept maximize the likelihood of Platt's smoothed targets, (P + 1) / (P + 2) for the P positives and
    1 / (N + 2) for the N negatives, which avoid overconfidence with few positives (Platt 1999, "Probabilistic outputs
    for support vector machines"). A class is not fitted if it has fewer than `MIN_POSITIVES` positives or as few
    negatives, if all its probabilities are equal, or if the slope is not above 0.

    Args:
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        probabilities: float [images, classes], between 0 and 1.
    """
    logits = logit(probabilities)
    columns = [_fit_class(*class_column(column, labels, logits)) for column in range(labels.shape[1])]
    slope, intercept, reasons = zip(*columns, strict=True)
    return Calibration(np.array(slope), np.array(intercept), reasons)


def correct_prior(probabilities: Scores, old: PerClass | float, new: PerClass | float) -> NDArray[np.float64]:
    """Return the probabilities at the prevalence `new` from those that are calibrated at the prevalence `old`.

    logit p' = logit p + logit new - logit old (Saerens et al., Adjusting the outputs of a classifier to new a priori
    probabilities, Neural Computation 14, 2002). Ranks do not change. nan where a prevalence is nan, 0 or 1.

    Args:
        probabilities: float [images, classes].
        old: prevalence of each class at which they are calibrated, float [classes].
        new: prevalence of each class that they shall have, float [classes].
    """
    corrected: NDArray[np.float64] = _sigmoid(logit(probabilities) + prior_shift(old, new))
    return corrected


def prior_shift(old: PerClass | float, new: PerClass | float) -> NDArray[np.float64]:
    """Return logit new - logit old, float; nan where one of them is nan, 0 or 1."""
    both = np.array(np.broadcast_arrays(old, new), np.float64)
    both[(both <= 0) | (both >= 1)] = np.nan
    shift: NDArray[np.float64] = logit(both[1]) - logit(both[0])
    return shift


def brier_score(labels: Labels, probabilities: Scores) -> PerClass:
    """Return the mean squared error of the probabilities (Brier 1950), float64 [classes]; nan without labels."""
    squares = np.square(np.asarray(probabilities, np.float64) - labels)
    with np.errstate(invalid="ignore"):
        return np.where(label_mask(labels), squares, 0).sum(axis=0) / label_mask(labels).sum(axis=0)


def expected_calibration_error(labels: Labels, probabilities: Scores, bins: int) -> PerClass:
    """Return the expected calibration error, float64 [classes]; 0 is best, nan without labels.

    Σ over bins of images in bin / images · |mean probability in bin − fraction of positives in bin|, over the bins of
    `reliability` (equal mass: Nixon et al. 2019, "Measuring calibration in deep learning"). Its bias is positive and
    larger with fewer images per bin, so compare only values for the same images and bins.
    """
    errors = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(label_mask(labels).any(axis=0)):
        curve = reliability(labels[:, column], probabilities[:, column], bins)
        errors[column] = np.average((curve["mean_predicted"] - curve["observed"]).abs(), weights=curve["images"])
    return errors


def error_if_calibrated(labels: Labels, probabilities: Scores, bins: int) -> PerClass:
    """Return the mean of `expected_calibration_error` under perfect calibration, float64 [classes].

    The error is above 0 even then, since each bin has a finite number of images. The mean is over `SIMULATIONS` draws
    of labels from the probabilities, for the images with a label; nan without labels.
    """
    random = np.random.default_rng(0)
    errors = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(label_mask(labels).any(axis=0)):
        _, probability = class_column(column, labels, probabilities)
        bin_of_image = _equal_mass_bins(probability, bins)
        drawn = random.random((SIMULATIONS, len(probability))) < probability
        excess = [np.bincount(bin_of_image, draw - probability, bins) for draw in drawn]
        errors[column] = np.abs(excess).sum(axis=1).mean() / len(probability)
    return errors


def reliability(labels: NDArray[np.uint8], probabilities: Scores, bins: int) -> pd.DataFrame:
    """Compute the reliability curve of one class.

    Args:
        labels: uint8 [images], 0, 1 or `UNKNOWN`; images with an unknown label are left out.
        probabilities: float [images].
        bins: number of bins; the result has fewer if equal probabilities fill more than one.

    Returns:
        One row for each bin, in ascending order of probability: mean_predicted, observed (fraction of positives) and
        images. Bins have equal numbers of images (±1), except that equal probabilities go into a single bin.
    """
    labels, probabilities = labels[label_mask(labels)], probabilities[label_mask(labels)]
    bin_of_image = _equal_mass_bins(probabilities, bins)
    rows = pd.DataFrame({"mean_predicted": np.asarray(probabilities, np.float64), "observed": labels.astype(float)})
    curve = rows.groupby(bin_of_image).mean()
    return curve.assign(images=np.unique(bin_of_image, return_counts=True)[1]).reset_index(drop=True)


def _equal_mass_bins(probabilities: Scores, bins: int) -> NDArray[np.int64]:
    """Return the bin of each image, int [images], 0 to `bins` - 1; integer arithmetic avoids rounding at the edges."""
    _, value_of_image, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    twice_middle = 2 * np.cumsum(counts) - counts
    return (bins * twice_middle // (2 * len(probabilities)))[value_of_image]


def _fit_class(labels: Labels, logits: Scores) -> tuple[float, float, str]:
    """Return slope, intercept and the reason if the class is not fitted."""
    positive = int(labels.sum())
    negative = len(labels) - positive
    if min(positive, negative) < MIN_POSITIVES:
        return 1.0, 0.0, f"{positive} positives and {negative} negatives; at least {MIN_POSITIVES} of each are needed"
    if np.ptp(logits) == 0:
        return 1.0, 0.0, "all probabilities are equal"
    slope, intercept = fit_logistic(logits, np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (negative + 2)))
    if slope <= 0:
        return 1.0, 0.0, "the probabilities of positives are not higher than those of negatives"
    return slope, intercept, ""


def fit_logistic(logits: Scores, targets: NDArray[np.float64]) -> tuple[float, float]:
    """Return the maximum-likelihood slope and intercept for `targets` between 0 and 1.

    A target t is represented by a positive image of weight t and a negative one of weight 1 - t.
    """
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9, max_iter=200)
    model.fit(
        np.concatenate([logits, logits])[:, None],
        np.repeat([1, 0], len(logits)),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logits)) without overflow; nan stays nan."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0, -logits))
