import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from cxr.evaluation import calibration
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.metrics import Labels, auroc

Probabilities = NDArray[np.float64]


def probability(odds: NDArray[np.float64]) -> Probabilities:
    return 1 / (1 + np.exp(-odds))


def planted(images: int, slope: float = 0.5, intercept: float = 1.0, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Three classes whose true log-odds are slope · those of the probabilities + intercept."""
    random = np.random.default_rng(seed)
    odds = random.normal(-2, 2, (images, 3))
    labels = random.random(odds.shape) < probability(slope * odds + intercept)
    return labels.astype(np.uint8), probability(odds)


def test_a_planted_miscalibration_is_recovered() -> None:
    fitted = calibration.fit(*planted(40_000))
    assert fitted.fitted.all()
    np.testing.assert_allclose(fitted.slope, 0.5, atol=0.03)
    np.testing.assert_allclose(fitted.intercept, 1, atol=0.06)


def test_fitting_repeats_to_the_bit() -> None:
    labels, probabilities = planted(500)
    assert calibration.fit(labels, probabilities).to_dict() == calibration.fit(labels, probabilities).to_dict()


def test_no_other_slope_and_intercept_are_more_likely() -> None:
    labels, probabilities = planted(400, seed=3)
    fitted = calibration.fit(labels, probabilities)
    positives = labels[:, 0].sum()
    targets = np.where(labels[:, 0] == 1, (positives + 1) / (positives + 2), 1 / (400 - positives + 2))

    def log_likelihood(slope: float, intercept: float) -> float:
        after = probability(slope * np.log(probabilities[:, 0] / (1 - probabilities[:, 0])) + intercept)
        return float((targets * np.log(after) + (1 - targets) * np.log(1 - after)).sum())

    best = log_likelihood(fitted.slope[0], fitted.intercept[0])
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert log_likelihood(fitted.slope[0] + step[0], fitted.intercept[0] + step[1]) < best


def test_calibration_mends_other_images_of_the_same_kind() -> None:
    fitted = calibration.fit(*planted(20_000, seed=1))
    labels, before = planted(20_000, seed=2)
    after = fitted.apply(before)
    assert (calibration.brier_score(labels, after) < calibration.brier_score(labels, before)).all()
    assert (calibration.expected_calibration_error(labels, before, 15) > 0.15).all()
    assert (calibration.expected_calibration_error(labels, after, 15) < 0.02).all()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_ranks_stay_as_they_are(seed: int) -> None:
    labels, probabilities = planted(300, slope=2.5, seed=seed)
    fitted = calibration.fit(labels, probabilities)
    after = fitted.apply(probabilities)
    assert ((after > 0) & (after < 1)).all()
    np.testing.assert_array_equal(auroc(labels, after), auroc(labels, probabilities))


def test_probabilities_of_0_and_1_stay_finite() -> None:
    labels, probabilities = planted(200)
    probabilities[:20] = np.array([0, 1, 0.5])
    fitted = calibration.fit(labels, probabilities)
    assert np.isfinite(fitted.apply(probabilities)).all()
    assert calibration.logit(np.array([0.0, 1.0])).tolist() == pytest.approx([-27.63, 27.63], abs=0.01)


def test_perfect_separation_has_a_finite_slope() -> None:
    labels = np.repeat([[0], [1]], 30, axis=0).astype(np.uint8)
    fitted = calibration.fit(labels, np.linspace(0.01, 0.99, 60)[:, None])
    assert 0 < fitted.slope[0] < 100


def test_a_class_that_cannot_be_fitted_keeps_its_probabilities_and_says_why() -> None:
    labels, probabilities = planted(300)
    labels[:, 0] = np.arange(300) < calibration.MIN_POSITIVES - 1
    probabilities[:, 1] = 1 - probabilities[:, 1]
    probabilities[:, 2] = 0.3
    fitted = calibration.fit(labels, probabilities)
    assert not fitted.fitted.any()
    assert fitted.not_fitted[0].startswith("9 positives and 291 negatives")
    assert fitted.not_fitted[1:] == (
        "the probabilities of positives are not higher than those of negatives",
        "all probabilities are equal",
    )
    np.testing.assert_array_equal(fitted.apply(probabilities), probabilities)


@pytest.mark.parametrize("slope", [0.0, -1.0, np.nan, np.inf, 1e308])
def test_a_slope_that_would_change_ranks_or_overflow_is_refused(slope: float) -> None:
    with pytest.raises(ValueError, match="slope"):
        Calibration(np.array([slope]), np.zeros(1), ("",))


@pytest.mark.parametrize("intercept", [np.nan, np.inf, -1e308])
def test_an_intercept_that_would_overflow_is_refused(intercept: float) -> None:
    with pytest.raises(ValueError, match="intercept"):
        Calibration(np.ones(1), np.array([intercept]), ("",))


def test_the_largest_coefficients_do_not_overflow() -> None:
    largest = calibration.MAX_COEFFICIENT
    steep = Calibration(np.full(2, largest), np.array([largest, -largest]), ("", ""))
    assert set(steep.apply(np.array([[0.0, 1.0], [1.0, 0.0]])).ravel()) <= {0.0, 1.0}


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Calibration(np.ones(1), np.zeros(1), ())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_brier_score_is_scikit_learns(seed: int) -> None:
    labels, probabilities = planted(50, seed=seed)
    expected = [brier_score_loss(labels[:, column], probabilities[:, column]) for column in range(3)]
    np.testing.assert_allclose(calibration.brier_score(labels, probabilities), expected)


def slow_calibration_error(labels: list[int], probabilities: list[float], bins: int) -> float:
    """The same by the book: images in order, each group of equals to the bin of its middle."""
    images = sorted(zip(probabilities, labels, strict=True))
    contents: list[list[tuple[float, int]]] = [[] for _ in range(bins)]
    for image in images:
        below = sum(other[0] < image[0] for other in images)
        equal = sum(other[0] == image[0] for other in images)
        middle = (2 * below + equal) / (2 * len(images))
        contents[int(middle * bins + 1e-12)].append(image)
    differences = [abs(sum(p for p, _ in content) - sum(y for _, y in content)) for content in contents if content]
    return sum(differences) / len(images)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([1, 2, 8]))
def test_calibration_error_is_that_of_a_slow_version(seed: int, bins: int, decimals: int) -> None:
    labels, probabilities = planted(40, seed=seed)
    probabilities = np.round(probabilities, decimals)
    errors = calibration.expected_calibration_error(labels, probabilities, bins)
    for column, error in enumerate(errors):
        slow = slow_calibration_error(labels[:, column].tolist(), probabilities[:, column].tolist(), bins)
        assert error == pytest.approx(slow)


def test_bins_have_equally_many_images() -> None:
    labels, probabilities = planted(103)
    curve = calibration.reliability(labels[:, 0], probabilities[:, 0], 10)
    assert sorted(set(curve["images"])) == [10, 11]
    assert curve["images"].sum() == 103
    assert curve["mean_predicted"].is_monotonic_increasing
    assert np.average(curve["observed"], weights=curve["images"]) == pytest.approx(labels[:, 0].mean())


def test_equal_probabilities_share_a_bin_whatever_their_order() -> None:
    probabilities = np.array([0.1] * 70 + [0.5] * 10 + [0.9] * 20)
    labels = (np.arange(100) % 2).astype(np.uint8)
    curve = calibration.reliability(labels, probabilities, 10)
    assert curve.to_dict("list") == {
        "mean_predicted": pytest.approx([0.1, 0.5, 0.9]),
        "observed": [0.5, 0.5, 0.5],
        "images": [70, 10, 20],
    }
    turned = calibration.reliability(labels[::-1], probabilities[::-1], 10)
    np.testing.assert_allclose(turned.to_numpy(), curve.to_numpy())
