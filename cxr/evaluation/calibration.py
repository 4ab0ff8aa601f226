"""Calibration: probabilities that come true as often as they say. Fitted on validation; ranks and AUROC stay."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cxr.evaluation.metrics import Labels, PerClass, Scores, label_mask, of_class

# The log-odds of 0 and 1 are infinite. At this distance from 1, float64 still has 4,500 steps left, so that ranks stay;
# a network that is surer than this (log-odds beyond 27.6) says no more by it.
BOUND = 1e-12
# Simulated with 10 positives of 6,000, fitting costs 1 % of the log loss where probabilities were right already, and
# takes 11 to 27 % off it where they were not; but fewer positives than this may be of one or two patients.
FEWEST = 10


@dataclass(frozen=True, eq=False)
class Calibration:
    """Of each class: log-odds after = slope · log-odds before + intercept, with a slope above 0.

    Attributes:
        slope: float64 [classes]; 1 where a class keeps its probabilities.
        intercept: float64 [classes]; 0 where a class keeps its probabilities.
        not_fitted: why a class keeps its probabilities; empty where it was fitted.
    """

    slope: PerClass
    intercept: PerClass
    not_fitted: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what would change ranks: ValueError."""
        if not self.slope.shape == self.intercept.shape == (len(self.not_fitted),):
            raise ValueError("slope, intercept and not_fitted are of different numbers of classes")
        if not (np.isfinite(self.slope) & np.isfinite(self.intercept) & (self.slope > 0)).all():
            raise ValueError("a slope that is not above 0, or a number that is not finite")

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """Which classes were fitted, bool [classes]; the others keep their probabilities."""
        return np.array([not reason for reason in self.not_fitted], bool)

    def apply(self, probabilities: Scores) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 [images, classes], of `probabilities` in the same shape."""
        calibrated = _probability(self.slope * logit(probabilities) + self.intercept)
        return np.where(self.fitted, calibrated, probabilities)

    def to_dict(self) -> dict[str, list[Any]]:
        """As JSON has it; `from_dict` gives the same bits back."""
        return {
            "slope": self.slope.tolist(),
            "intercept": self.intercept.tolist(),
            "not_fitted": list(self.not_fitted),
        }

    @classmethod
    def from_dict(cls, values: dict[str, list[Any]]) -> Self:
        """The inverse of `to_dict`; KeyError or ValueError where `values` is not of it."""
        slope, intercept = (np.array(values[name], np.float64) for name in ("slope", "intercept"))
        return cls(slope, intercept, tuple(values["not_fitted"]))


def logit(probabilities: Scores) -> NDArray[np.float64]:
    """log(p / (1 - p)) in float64, with p no nearer to 0 and 1 than `BOUND`; any shape."""
    clipped = np.clip(np.asarray(probabilities, np.float64), BOUND, 1 - BOUND)
    return np.log(clipped) - np.log1p(-clipped)


def fit(labels: Labels, probabilities: Scores) -> Calibration:
    """Platt scaling of each class, on images that the networks were not trained on, and not on test.

    Slope and intercept are those of highest likelihood for Platt's smoothed targets, (P + 1) / (P + 2) for the P
    positives and 1 / (N + 2) for the N negatives, which keep few positives from making it too sure (Platt 1999,
    "Probabilistic outputs for support vector machines"). A class keeps its probabilities where it has fewer than
    `FEWEST` positives or negatives, where all its probabilities are equal, or where the slope is not above 0.

    Args:
        labels: uint8 [images, classes], 0, 1 or `UNKNOWN`.
        probabilities: float [images, classes], between 0 and 1.
    """
    odds = logit(probabilities)
    columns = [_fit_class(*of_class(column, labels, odds)) for column in range(labels.shape[1])]
    slope, intercept, reasons = zip(*columns, strict=True)
    return Calibration(np.array(slope), np.array(intercept), reasons)


def brier_score(labels: Labels, probabilities: Scores) -> PerClass:
    """Mean squared difference of probability and label (Brier 1950), float64 [classes]; nan without labels."""
    squares = np.square(np.asarray(probabilities, np.float64) - labels)
    with np.errstate(invalid="ignore"):
        return np.where(label_mask(labels), squares, 0).sum(axis=0) / label_mask(labels).sum(axis=0)


def expected_calibration_error(labels: Labels, probabilities: Scores, bins: int) -> PerClass:
    """How far probabilities are from the share that came true, float64 [classes]; 0 is best.

    Σ over bins of images in bin / images · |mean probability in bin − share of positives in bin|, over the bins of
    `reliability` (equal mass: Nixon et al. 2019, "Measuring calibration in deep learning"). Chance alone makes it
    larger than 0: the more, the fewer images a bin has, so compare it only at the same images and bins. It is nan of a
    class that no image has a label of.
    """
    errors = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(label_mask(labels).any(axis=0)):
        curve = reliability(labels[:, column], probabilities[:, column], bins)
        errors[column] = np.average((curve["mean_predicted"] - curve["observed"]).abs(), weights=curve["images"])
    return errors


def reliability(labels: NDArray[np.uint8], probabilities: Scores, bins: int) -> pd.DataFrame:
    """The reliability curve of one class: mean_predicted, observed (share of positives) and images of each bin.

    Args:
        labels: uint8 [images], 0, 1 or `UNKNOWN`: such images are left out.
        probabilities: float [images].
        bins: how many bins to ask for; there are fewer where equal probabilities fill more than one.

    Returns:
        A row a bin, by rising probability. Bins have equally many images, to one, but equal probabilities are never
        parted: all go where their middle one belongs.
    """
    labels, probabilities = labels[label_mask(labels)], probabilities[label_mask(labels)]
    place = _equal_mass_bins(probabilities, bins)
    rows = pd.DataFrame({"mean_predicted": np.asarray(probabilities, np.float64), "observed": labels.astype(float)})
    curve = rows.groupby(place).mean()
    return curve.assign(images=np.unique(place, return_counts=True)[1]).reset_index(drop=True)


def _equal_mass_bins(probabilities: Scores, bins: int) -> NDArray[np.int64]:
    """The bin of each image, int [images], 0 to `bins` - 1; in whole numbers, so that no rounding moves an edge."""
    _, value_of_image, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    twice_the_middle = 2 * np.cumsum(counts) - counts
    return (bins * twice_the_middle // (2 * len(probabilities)))[value_of_image]


def _fit_class(labels: Labels, odds: Scores) -> tuple[float, float, str]:
    """Slope, intercept, and why they are 1 and 0 if they had to be."""
    positive = int(labels.sum())
    negative = len(labels) - positive
    if min(positive, negative) < FEWEST:
        return 1.0, 0.0, f"{positive} positives and {negative} negatives, of each at least {FEWEST} are needed"
    if np.ptp(odds) == 0:
        return 1.0, 0.0, "all probabilities are equal"
    slope, intercept = _most_likely(odds, np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (negative + 2)))
    if slope <= 0:
        return 1.0, 0.0, "positives have no higher probabilities than negatives"
    return slope, intercept, ""


def _most_likely(odds: Scores, targets: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of highest likelihood for `targets` between 0 and 1.

    A target t is fitted as one image of weight t with the label, and one of weight 1 - t without it.
    """
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9, max_iter=200)
    model.fit(
        np.concatenate([odds, odds])[:, None],
        np.repeat([1, 0], len(odds)),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _probability(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-odds)), without overflow; nan stays nan."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0, -odds))
