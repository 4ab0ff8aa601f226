import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from cxr.evaluation import metrics, thresholds


def predictions(seed: int, images: int = 60, classes: int = 4) -> tuple[metrics.Labels, metrics.Scores]:
    """Random labels, and scores that know something of them and have ties."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, classes)) < 0.3).astype(np.uint8)
    scores = np.round(random.normal(size=labels.shape) + labels, 1).astype(np.float32)
    return labels, scores


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_auroc_is_the_share_of_rightly_ordered_pairs(seed: int) -> None:
    labels, scores = predictions(seed, images=25)
    for column, value in enumerate(metrics.auroc(labels, scores)):
        ill, well = scores[labels[:, column] == 1, column], scores[labels[:, column] == 0, column]
        if not len(ill) or not len(well):
            assert np.isnan(value)
        else:
            pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(ill, well)]
            assert value == pytest.approx(np.mean(pairs))


def test_average_precision_is_the_mean_precision_at_each_positive() -> None:
    labels = np.array([[1], [0], [1], [0]], np.uint8)
    scores = np.array([[0.9], [0.8], [0.7], [0.1]], np.float32)
    assert metrics.average_precision(labels, scores)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_a_class_with_one_value_has_no_auroc_and_is_left_out_of_the_mean() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], np.uint8)
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.5], [0.8, 0.3, 0.5]], np.float32)
    values = metrics.auroc(labels, scores)
    assert values[0] == 1
    assert np.isnan(values[1:]).all()
    assert metrics.nanmean(values) == 1
    assert np.isnan(metrics.nanmean(values[1:]))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_decisions_are_counted_as_scikit_learn_counts_them(seed: int) -> None:
    labels, scores = predictions(seed)
    decisions = scores >= 0.5
    counts = metrics.confusion(labels, decisions)
    rates = metrics.precision_recall_f1(counts)
    for column in range(labels.shape[1]):
        truth, decision = labels[:, column], decisions[:, column]
        assert counts[column].tolist() == confusion_matrix(truth, decision, labels=[0, 1]).ravel().tolist()
        expected = [score(truth, decision, zero_division=np.nan) for score in (precision_score, recall_score, f1_score)]
        np.testing.assert_allclose(rates[column], expected)
        assert metrics.accuracy(labels, decisions)[column] == (truth == decision).mean()


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    labels, scores = predictions(seed, images=30, classes=2)
    for column, threshold in enumerate(thresholds.best_f1_thresholds(labels, scores)):
        truth, score = labels[:, column], scores[:, column]
        if truth.any():
            best = max(f1_score(truth, score >= candidate) for candidate in score)
            assert f1_score(truth, score >= threshold) == pytest.approx(best)


def test_a_class_without_positives_has_a_threshold_of_one_half() -> None:
    labels, scores = predictions(1)
    labels[:, 2] = 0
    assert thresholds.best_f1_thresholds(labels, scores)[2] == 0.5
