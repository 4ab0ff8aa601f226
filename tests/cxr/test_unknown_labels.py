"""Unknown labels are excluded from all metrics and the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation import bootstrap, calibration, metrics, subgroups, thresholds
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.summary import class_metrics, operating_points
from cxr.training import losses
from cxr.training.augmentation import mixup
from cxr.training.data import label_tensor
from cxr.training.params import Loss

PLAIN = Loss(max_pos_weight=1, focal_gamma=0, label_smoothing=0)


def labels_and_probabilities(seed: int, images: int = 120) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return labels, of which a quarter and all of the last class are unknown, and correlated probabilities."""
    random = np.random.default_rng(seed)
    truth = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    probabilities = (truth + 2 * random.random(truth.shape)).round(1) / 3
    labels = np.where(random.random(truth.shape) < 0.25, np.uint8(UNKNOWN), truth)
    labels[:, -1] = UNKNOWN
    return labels, probabilities


METRICS: dict[str, Callable[[Any, Any], Any]] = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "accuracy": lambda labels, scores: metrics.accuracy(labels, scores > 0.5),
    "confusion": lambda labels, scores: metrics.confusion(labels, scores > 0.5)[:, 2],
    "f1": thresholds.best_f1_thresholds,
    "youden": lambda labels, scores: thresholds.choose_thresholds("youden", labels, scores, 1),
    "sensitivity": lambda labels, scores: thresholds.choose_thresholds("sensitivity", labels, scores, 0.8),
    "brier": calibration.brier_score,
    "calibration_error": lambda labels, scores: calibration.expected_calibration_error(labels, scores, 5),
    "slope": lambda labels, scores: calibration.fit(labels, scores).slope,
    "has_enough_images": lambda labels, _: subgroups.has_enough_images(labels),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_a_metric_is_computed_from_the_known_labels(name: str, seed: int) -> None:
    labels, probabilities = labels_and_probabilities(seed)
    found = METRICS[name](labels, probabilities)
    for column in range(len(CLASSES) - 1):
        known = labels[:, column] != UNKNOWN
        alone = METRICS[name](labels[known][:, [column]], probabilities[known][:, [column]])
        np.testing.assert_allclose(found[column], alone[0], rtol=1e-12)


def test_intervals_are_computed_from_the_known_labels() -> None:
    labels, probabilities = labels_and_probabilities(1)
    samples = bootstrap.bootstrap_patients(np.arange(len(labels)) // 2, 200, 1)
    found = auroc_and_average_precision(labels, probabilities, samples)
    for column in range(len(CLASSES) - 1):
        known = labels[:, column] != UNKNOWN
        alone = auroc_and_average_precision(
            labels[known][:, [column]], probabilities[known][:, [column]], samples.subset(known)
        )
        for whole, part in zip(found, alone, strict=True):
            np.testing.assert_array_equal(whole.samples[:, column], part.samples[:, 0])
            np.testing.assert_array_equal(whole.interval()[column], part.interval()[0])


def test_a_class_without_known_labels_has_no_metrics_and_is_never_predicted() -> None:
    labels, probabilities = labels_and_probabilities(2)
    chosen = thresholds.choose_thresholds("f1", labels, probabilities, 1)
    table = class_metrics(labels, probabilities, chosen)
    last = table.iloc[-1]
    assert np.isnan(chosen[-1])
    assert last["images"] == 0
    assert np.isnan(last[["auroc", "average_precision", "accuracy", "precision", "recall", "f1"]].astype(float)).all()
    assert last[["true_negatives", "false_positives", "false_negatives", "true_positives"]].sum() == 0
    fitted = calibration.fit(labels, probabilities)
    assert fitted.not_fitted[-1]
    assert np.isnan(fitted.apply(chosen[None])[0, -1])


def test_operating_points_count_known_labels_only() -> None:
    labels, probabilities = labels_and_probabilities(3)
    predicted_positive = probabilities > 0.5
    samples = bootstrap.bootstrap_patients(np.arange(len(labels)), 100, 1)
    points = operating_points(labels, predicted_positive, np.full(len(CLASSES), 0.5), "f1", samples).classes
    for column, name in enumerate(CLASSES[:-1]):
        positive, truth = predicted_positive[:, column], labels[:, column]
        assert points[name].sensitivity.value == pytest.approx(positive[truth == 1].mean())
        assert points[name].specificity.value == pytest.approx((~positive)[truth == 0].mean())
        assert points[name].ppv.value == pytest.approx(
            (truth[positive] == 1).sum() / np.isin(truth[positive], (0, 1)).sum()
        )
        assert points[name].npv.value == pytest.approx(
            (truth[~positive] == 0).sum() / np.isin(truth[~positive], (0, 1)).sum()
        )
    assert points[CLASSES[-1]].ppv.value is None


@pytest.mark.parametrize("focal_gamma", [0.0, 1.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_an_unknown_label_does_not_change_the_loss(focal_gamma: float, label_smoothing: float) -> None:
    labels = label_tensor(labels_and_probabilities(4, 8)[0], torch.device("cpu"))
    logits = torch.linspace(-3, 3, labels.numel()).view_as(labels).requires_grad_()
    loss = Loss(max_pos_weight=1, focal_gamma=focal_gamma, label_smoothing=label_smoothing)
    whole = losses.multi_label_loss(logits, labels, loss)
    (gradient,) = torch.autograd.grad(whole, logits)
    known = ~labels.isnan()
    alone = losses.multi_label_loss(logits[known][None], labels[known][None], loss)
    assert float(whole.detach()) == pytest.approx(float(alone.detach()) * float(known.float().mean()))
    assert not gradient[~known].any()
    assert gradient[known].all()


def test_bce_loss_ignores_unknown_labels() -> None:
    labels = label_tensor(labels_and_probabilities(5)[0], torch.device("cpu"))
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    assert losses.bce_loss(logits, labels) == losses.multi_label_loss(logits, labels, PLAIN)


def test_class_weights_and_prior_logits_count_known_labels() -> None:
    labels, _ = labels_and_probabilities(6)
    tensor = label_tensor(labels, torch.device("cpu"))
    weights, logits = losses.pos_weights(tensor, 5), losses.prior_logits(tensor)
    assert weights is not None
    for column in range(len(CLASSES) - 1):
        positives, negatives = (labels[:, column] == 1).sum(), (labels[:, column] == 0).sum()
        assert float(weights[column]) == pytest.approx(min(max(negatives / positives, 1), 5))
        assert float(logits[column]) == pytest.approx(np.log((positives + 0.5) / (negatives + 0.5)), abs=1e-6)
    assert [float(weights[-1]), float(logits[-1])] == [1, 0]


def test_mixup_with_an_unknown_label_is_unknown() -> None:
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    _, mixed = mixup(torch.zeros(2, 1, 4, 4), labels, torch.tensor(0.75))
    torch.testing.assert_close(mixed, torch.tensor([[0.75, torch.nan], [0.25, torch.nan]]), equal_nan=True)
