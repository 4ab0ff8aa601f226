from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxr.evaluation import thresholds
from cxr.evaluation.metrics import Labels, Scores, has_both_classes

Mask = NDArray[np.bool_]
SEEDS = st.integers(0, 10_000)


def predictions(seed: int, images: int = 30, classes: int = 3) -> tuple[Labels, Scores]:
    """Random labels of every class, and scores that know something of them and have ties."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, classes)) < 0.3).astype(np.uint8)
    labels[0], labels[1] = 0, 1
    return labels, np.round(random.normal(size=labels.shape) + labels, 1)


def f1(truth: Labels, predicted_positive: Mask) -> float:
    return float(2 * (truth & predicted_positive).sum() / (truth.sum() + predicted_positive.sum()))


def youden(truth: Labels, predicted_positive: Mask) -> float:
    return float(predicted_positive[truth == 1].mean() - predicted_positive[truth == 0].mean())


@settings(deadline=None, max_examples=40)
@given(SEEDS)
@pytest.mark.parametrize(("rule", "index"), [("f1", f1), ("youden", youden)])
def test_no_threshold_is_better_by_its_rule(
    rule: thresholds.Rule, index: Callable[[Labels, Mask], float], seed: int
) -> None:
    labels, scores = predictions(seed)
    chosen = thresholds.choose_thresholds(rule, labels, scores, 0.9)
    for truth, score, threshold in zip(labels.T, scores.T, chosen, strict=True):
        best = max(index(truth, score >= candidate) for candidate in score)
        assert index(truth, score >= threshold) == pytest.approx(best)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from([0.01, 0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0]))
def test_no_higher_threshold_reaches_the_sensitivity(seed: int, wanted: float) -> None:
    labels, scores = predictions(seed)
    chosen = thresholds.choose_thresholds("sensitivity", labels, scores, wanted)
    for truth, score, threshold in zip(labels.T, scores.T, chosen, strict=True):
        reaching = [candidate for candidate in score if (score[truth == 1] >= candidate).mean() >= wanted]
        assert threshold == max(reaching)


def test_seven_of_ten_positives_are_a_sensitivity_of_0_7() -> None:
    labels = np.ones((11, 1), np.uint8)
    labels[10] = 0
    scores = np.arange(11, 0, -1.0)[:, None]
    assert thresholds.choose_thresholds("sensitivity", labels, scores, 0.7).tolist() == [5.0]


def test_scores_worse_than_chance_still_give_a_finite_threshold() -> None:
    labels = np.array([[1], [1], [0], [0]], np.uint8)
    scores = np.array([[0.1], [0.2], [0.8], [0.9]])
    assert np.isfinite(thresholds.choose_thresholds("youden", labels, scores, 0.9)).all()


@pytest.mark.parametrize("rule", ["f1", "youden", "sensitivity"])
def test_a_class_with_one_value_gets_one_half(rule: thresholds.Rule) -> None:
    labels, scores = predictions(1)
    labels[:, 0], labels[:, 2] = 0, 1
    chosen = thresholds.choose_thresholds(rule, labels, scores, 0.9)
    assert has_both_classes(labels).tolist() == [False, True, False]
    assert chosen[[0, 2]].tolist() == [0.5, 0.5]
    assert chosen[1] == thresholds.choose_thresholds(rule, labels[:, [1]], scores[:, [1]], 0.9)[0]


def test_an_unknown_rule_and_an_impossible_sensitivity_are_refused() -> None:
    labels, scores = predictions(1)
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        thresholds.choose_thresholds("best", labels, scores, 0.9)  # type: ignore[arg-type]
    for sensitivity in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            thresholds.choose_thresholds("sensitivity", labels, scores, sensitivity)
