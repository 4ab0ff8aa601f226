"""Prevalence: how its shift between validation and test changes calibration, and predictive values at any prevalence.

A calibrated network predicts the prevalence of the images that its calibration was fitted on. On images with another
prevalence the probabilities are wrong although the ranking is as good. If only the prevalence differs, and not how the
images with and without the class look, Bayes' theorem corrects them (`correct_prior`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import t

from cxr.core.labels import CLASSES
from cxr.evaluation.bootstrap import ALPHA, BootstrapDistribution, BootstrapSamples, Floats, proportion
from cxr.evaluation.calibration import (
    MIN_POSITIVES,
    correct_prior,
    error_if_calibrated,
    expected_calibration_error,
    fit_logistic,
    logit,
)
from cxr.evaluation.class_values import with_ci
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.metrics import Labels, Scores, class_column, label_mask
from cxr.evaluation.schema import ClassPrevalence, Interval, PrevalenceShift, nan_to_none

# A prevalence in test that is this many times as high as in validation, or as low, is reported as a shift.
MAX_RATIO = 1.5
# The prevalences for which PPV and NPV are computed.
PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
UNDEFINED_INTERVAL = Interval(value=None, low=None, high=None)


def prevalence_shift(
    labels: Labels, probabilities: Scores, decisions: Decisions, samples: BootstrapSamples, bins: int
) -> PrevalenceShift:
    """Compare the prevalence of each class with that of the calibration's images, and measure what follows from it.

    Args:
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        probabilities: before calibration, float [images, 15].
        decisions: calibration, thresholds, and the prevalence at which they were fitted.
        samples: bootstrap samples of the same images.
        bins: number of bins of the calibration error.
    """
    calibrated = decisions.calibration.apply(probabilities)
    predicted, is_labelled = probabilities >= decisions.thresholds, label_mask(labels)
    observed = proportion(labels == 1, is_labelled, samples)
    values, old = with_ci(CLASSES, observed), decisions.prevalence
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = observed.value / old
        mean = np.where(is_labelled, calibrated, 0).sum(axis=0) / is_labelled.sum(axis=0)
    corrected = correct_prior(calibrated, old, observed.value)
    errors = {
        "calibration_error": expected_calibration_error(labels, calibrated, bins),
        "calibration_error_if_calibrated": error_if_calibrated(labels, calibrated, bins),
        "calibration_error_corrected": expected_calibration_error(labels, corrected, bins),
    }
    rates = proportion(predicted, labels == 1, samples), proportion(~predicted, labels == 0, samples)
    at = {f"{prevalence:g}": predictive_values(*rates, prevalence) for prevalence in PREVALENCES}
    ppv, npv = ({name: with_ci(CLASSES, both[kind]) for name, both in at.items()} for kind in (0, 1))
    classes = {}
    for column, name in enumerate(CLASSES):
        cox = cox_calibration(*class_column(column, labels, calibrated), samples.patient[is_labelled[:, column]])
        classes[name] = ClassPrevalence(
            validation=nan_to_none(old[column]),
            test=values[name],
            ratio=nan_to_none(ratio[column]) if np.isfinite(ratio[column]) else None,
            mean_predicted=nan_to_none(mean[column]),
            calibration_intercept=cox.intercept,
            calibration_slope=cox.slope,
            **{kind: nan_to_none(error[column]) for kind, error in errors.items()},
            ppv={at_name: by_class[name] for at_name, by_class in ppv.items()},
            npv={at_name: by_class[name] for at_name, by_class in npv.items()},
        )
    shifted = [name for name, one in classes.items() if is_shifted(one)]
    return PrevalenceShift(bins=bins, max_ratio=MAX_RATIO, shifted=shifted, classes=classes)


def is_shifted(one: ClassPrevalence) -> bool:
    """Return whether the prevalences differ by more than `MAX_RATIO`, and by more than the interval of test."""
    if one.ratio is None or one.test.low is None or one.test.high is None or one.validation is None:
        return False
    outside = not one.test.low <= one.validation <= one.test.high
    return outside and not 1 / MAX_RATIO <= one.ratio <= MAX_RATIO


def predictive_values(
    sensitivity: BootstrapDistribution, specificity: BootstrapDistribution, prevalence: float
) -> tuple[BootstrapDistribution, BootstrapDistribution]:
    """Return PPV and NPV of each class at another prevalence, with the same sensitivity and specificity (Bayes)."""
    dof = np.minimum(sensitivity.dof, specificity.dof)

    def both(true_positive: Floats, true_negative: Floats) -> tuple[Floats, Floats]:
        hits, misses = prevalence * true_positive, prevalence * (1 - true_positive)
        rejections, alarms = (1 - prevalence) * true_negative, (1 - prevalence) * (1 - true_negative)
        with np.errstate(invalid="ignore"):
            return hits / (hits + alarms), rejections / (rejections + misses)

    values = both(sensitivity.value, specificity.value)
    of_samples = both(sensitivity.samples, specificity.samples)
    ppv, npv = (BootstrapDistribution(value, part, dof) for value, part in zip(values, of_samples, strict=True))
    return ppv, npv


class CoxCalibration(NamedTuple):
    """Calibration intercept (0 is best) and slope (1 is best) of one class."""

    intercept: Interval
    slope: Interval


def cox_calibration(labels: NDArray[np.uint8], probabilities: Scores, patient: NDArray[np.intp]) -> CoxCalibration:
    """Fit the labels by the logits of the probabilities.

    The slope is that of logistic regression: below 1, the probabilities are too extreme. The intercept is that with the
    slope fixed to 1: above 0, the probabilities are too low on average (Van Calster et al., Calibration: the Achilles
    heel of predictive analytics, BMC Medicine 17, 2019). Intervals are those of Student's t with the sandwich estimate
    of the variance, with patients as clusters (Liang and Zeger, Longitudinal data analysis using generalized linear
    models, Biometrika 73, 1986). Both are undefined with fewer than `MIN_POSITIVES` positives or negatives, or if the
    labels are separable.

    Args:
        labels: uint8 [images], 0 or 1.
        probabilities: float [images].
        patient: of each image, int [images].
    """
    logits = logit(probabilities)
    positive, negative = logits[labels == 1], logits[labels == 0]
    if min(len(positive), len(negative)) < MIN_POSITIVES or not _overlap_both_ways(positive, negative):
        return CoxCalibration(UNDEFINED_INTERVAL, UNDEFINED_INTERVAL)
    fewer = min(len(np.unique(patient[labels == value])) for value in (0, 1))
    intercept = float(brentq(lambda shift: (labels - expit(logits + shift)).sum(), -100, 100, xtol=1e-12))
    of_intercept = _cluster_interval(
        intercept, 0, labels - expit(logits + intercept), np.ones((len(logits), 1)), patient, fewer - 1
    )
    slope, constant = fit_logistic(logits, labels.astype(np.float64))
    design = np.stack([np.ones(len(logits)), logits], axis=1)
    residuals = labels - expit(constant + slope * logits)
    return CoxCalibration(of_intercept, _cluster_interval(slope, 1, residuals, design, patient, fewer - 1))


def _overlap_both_ways(positive: Floats, negative: Floats) -> bool:
    """Return whether no threshold separates the logits, in either direction: else the slope is infinite."""
    return bool(positive.min() < negative.max() and negative.min() < positive.max())


def _cluster_interval(
    value: float, column: int, residuals: Floats, design: Floats, patient: NDArray[np.intp], dof: int
) -> Interval:
    """Return the coefficient `value` of `design`'s `column` with its interval; without one for a single patient."""
    # |y - p| (1 - |y - p|) = p (1 - p) for a label y of 0 or 1.
    weights = np.abs(residuals) * (1 - np.abs(residuals))
    bread = np.linalg.inv((design * weights[:, None]).T @ design)
    scores = np.stack([np.bincount(patient, residuals * one) for one in design.T], axis=1)
    clusters = len(np.unique(patient))
    variance = (bread @ (scores.T @ scores) @ bread)[column, column] * clusters / max(clusters - 1, 1)
    if dof < 1:
        return Interval(value=value, low=None, high=None)
    margin = float(t.ppf(1 - ALPHA / 2, dof) * np.sqrt(variance))
    return Interval(value=value, low=value - margin, high=value + margin)
