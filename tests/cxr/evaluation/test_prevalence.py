"""Prevalence shift, compared with simulations of known calibration, closed forms and logistic regression."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation import prevalence
from cxr.evaluation.bootstrap import bootstrap_patients, proportion
from cxr.evaluation.calibration import correct_prior, error_if_calibrated, expected_calibration_error
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.params import Threshold
from cxr.evaluation.prevalence import cox_calibration, predictive_values, prevalence_shift
from tests.fixtures.reported import NO_TTA

COLUMN = CLASSES.index("Pneumothorax")


def drawn(images: int, positives: float, seed: int) -> tuple[Any, Any]:
    """Labels of a prevalence, and scores that are normal given the label: calibrated at a prevalence of 0.03 if so."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, len(CLASSES))) < positives).astype(np.uint8)
    # Normal scores with distance d have the log likelihood ratio d · score - d² / 2.
    scores = random.normal(size=labels.shape) + 1.5 * labels
    return labels, expit(1.5 * scores - 1.5**2 / 2 + logit(0.03))


def decisions_of(labels: Any, probabilities: Any) -> Decisions:
    threshold = Threshold(rule="f1", sensitivity=0.9)
    return fit_decisions(labels, probabilities, threshold, sha256={"a-1": ""}, tta=NO_TTA, synthetic=True)


def test_a_shift_of_3_4_times_is_named_and_corrected() -> None:
    decisions = decisions_of(*drawn(20_000, 0.03, seed=1))
    labels, probabilities = drawn(20_000, 0.102, seed=2)
    found = prevalence_shift(labels, probabilities, decisions, bootstrap_patients(np.arange(20_000), 100, 1), 10)
    one = found.classes["Pneumothorax"]
    assert found.shifted == list(CLASSES)
    assert one.ratio == pytest.approx(3.4, rel=0.1)
    assert one.validation == pytest.approx(decisions.prevalence[COLUMN])
    assert one.test.value == pytest.approx(labels[:, COLUMN].mean())
    assert one.calibration_error is not None
    assert one.calibration_error_corrected is not None
    assert one.calibration_error > 0.04
    assert one.calibration_error_corrected < 0.01
    # The logits are too low by the shift of the prior.
    assert one.calibration_intercept.low is not None
    assert one.calibration_intercept.high is not None
    shift = logit(0.102) - logit(0.03)
    assert one.calibration_intercept.low - 0.15 < shift < one.calibration_intercept.high + 0.15
    assert one.calibration_slope.value == pytest.approx(1, abs=0.1)


def test_bayes_theorem_by_hand() -> None:
    """A likelihood ratio of 3: 0.5 means 3 / 4 where the prior odds are 1, 3 / 12 where they are 1 / 9."""
    corrected = correct_prior(np.array([[0.75]]), np.array([0.5]), np.array([0.1]))
    assert corrected[0, 0] == pytest.approx(0.25)
    assert correct_prior(corrected, 0.1, 0.5)[0, 0] == pytest.approx(0.75)
    for unknown in (np.nan, 0.0, 1.0):
        assert np.isnan(correct_prior(np.array([[0.75]]), np.array([unknown]), np.array([0.1]))).all()


def test_decisions_at_another_prevalence_predict_the_same_images() -> None:
    labels, probabilities = drawn(5000, 0.05, seed=11)
    decisions = decisions_of(labels, probabilities)
    moved = decisions.at_prevalence({"Mass": 0.3})
    column, before = CLASSES.index("Mass"), decisions.calibration.apply(probabilities)
    after = moved.calibration.apply(probabilities)
    expected = correct_prior(before[:, column], float(decisions.prevalence[column]), 0.3)
    np.testing.assert_allclose(after[:, column], expected)
    np.testing.assert_array_equal(np.delete(after, column, 1), np.delete(before, column, 1))
    np.testing.assert_array_equal(after >= moved.calibrated_thresholds, before >= decisions.calibrated_thresholds)
    labels[:, column] = 0
    with pytest.raises(InputError, match="Mass cannot be corrected to a prevalence, since they are not calibrated"):
        decisions_of(labels, probabilities).at_prevalence({"Mass": 0.3})


def test_predictive_values_are_those_of_bayes_theorem_and_of_the_test_images() -> None:
    random = np.random.default_rng(3)
    labels = random.random((4000, 2)) < 0.2
    predicted = random.random(labels.shape) < np.where(labels, 0.7, 0.1)
    samples = bootstrap_patients(np.arange(4000) // 2, 50, 1)
    rates = proportion(predicted, labels, samples), proportion(~predicted, ~labels, samples)
    ppv, npv = predictive_values(*rates, float(labels[:, 0].mean()))
    assert ppv.value[0] == pytest.approx(labels[:, 0][predicted[:, 0]].mean())
    assert npv.value[0] == pytest.approx((~labels[:, 0])[~predicted[:, 0]].mean())
    sensitivity, specificity = rates[0].value, rates[1].value
    rare, _ = predictive_values(*rates, 0.01)
    np.testing.assert_allclose(rare.value, 0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity)))
    assert (rare.interval()[:, 0] < rare.value).all()
    assert (rare.value < rare.interval()[:, 1]).all()


def slow_fit(labels: Any, logits: Any, *, fixed: bool) -> Any:
    """The maximum of the likelihood by a general optimizer: intercept, or intercept and slope."""

    def loss(theta: Any) -> float:
        eta = theta[0] + (logits if fixed else theta[1] * logits)
        return float(np.logaddexp(0, np.where(labels == 1, -eta, eta)).sum())

    start = np.zeros(1) if fixed else np.array([0.0, 1.0])
    return minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}).x


def test_intercept_and_slope_maximize_the_likelihood() -> None:
    random = np.random.default_rng(4)
    logits = random.normal(-1, 1.5, 500)
    labels = (random.random(500) < expit(0.5 * logits + 0.7)).astype(np.uint8)
    found = cox_calibration(labels, expit(logits), np.arange(500))
    assert found.intercept.value == pytest.approx(slow_fit(labels, logits, fixed=True)[0], abs=1e-5)
    assert found.slope.value == pytest.approx(slow_fit(labels, logits, fixed=False)[1], abs=1e-4)


def test_patients_with_equal_images_count_once() -> None:
    """Five equal images of each patient say no more than one: the sandwich estimate is the same."""
    random = np.random.default_rng(5)
    logits = random.normal(0, 1.5, 300)
    labels = (random.random(300) < expit(logits)).astype(np.uint8)
    once = cox_calibration(labels, expit(logits), np.arange(300))
    five = cox_calibration(np.repeat(labels, 5), np.repeat(expit(logits), 5), np.repeat(np.arange(300), 5))
    for one, other in zip(once, five, strict=True):
        assert one.model_dump() == pytest.approx(other.model_dump(), rel=1e-5)


def test_intervals_of_intercept_and_slope_cover_what_is_true() -> None:
    covered = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        logits = np.repeat(random.normal(-1, 1, 150), 2) + random.normal(0, 0.5, 300)
        labels = (random.random(300) < expit(0.8 * logits)).astype(np.uint8)
        found = cox_calibration(labels, expit(logits), np.repeat(np.arange(150), 2)).slope
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= 0.8 <= found.high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_separable_labels_and_few_positives_have_no_slope() -> None:
    probabilities = np.linspace(0.01, 0.99, 60)
    separable = (probabilities > 0.5).astype(np.uint8)
    few = (np.arange(60) % 7 == 0).astype(np.uint8)
    for labels in (separable, 1 - separable, few, np.zeros(60, np.uint8)):
        assert cox_calibration(labels, probabilities, np.arange(60)).slope == prevalence.UNDEFINED_INTERVAL


def test_the_error_under_perfect_calibration_is_that_of_simulated_labels() -> None:
    probabilities = np.random.default_rng(6).beta(1, 12, (180, 2))
    expected = error_if_calibrated(np.zeros((180, 2), np.uint8), probabilities, 10)
    random = np.random.default_rng(7)
    simulated = [
        expected_calibration_error((random.random((180, 2)) < probabilities).astype(np.uint8), probabilities, 10)
        for _ in range(100)
    ]
    np.testing.assert_allclose(expected, np.mean(simulated, axis=0), rtol=0.1)
    labels = np.full((180, 2), UNKNOWN, np.uint8)
    assert np.isnan(error_if_calibrated(labels, probabilities, 10)).all()


def test_a_difference_within_the_interval_is_no_shift() -> None:
    decisions = decisions_of(*drawn(2000, 0.1, seed=8))
    labels, probabilities = drawn(60, 0.1, seed=9)
    labels[:, :3] = np.array([UNKNOWN, 0, 0])
    labels[:, 2] = np.arange(60) < 10  # 1.7 times as common, but the interval of 10 in 60 contains 0.1
    found = prevalence_shift(labels, probabilities, decisions, bootstrap_patients(np.arange(60), 100, 1), 10)
    assert not {CLASSES[0], CLASSES[2]} & set(found.shifted)
    assert found.classes[CLASSES[0]].test.value is None
    assert found.classes[CLASSES[0]].mean_predicted is None
    ratio = found.classes[CLASSES[2]].ratio
    assert ratio is not None
    assert ratio > prevalence.MAX_RATIO
    # Without any positive in 60 images, the prevalence is below 0.06.
    assert CLASSES[1] in found.shifted
    assert found.classes[CLASSES[1]].test.high == pytest.approx(1 - 0.025 ** (1 / 60))
    assert found.classes[CLASSES[1]].calibration_error_corrected is None
