"""A label that nobody knows counts nowhere: each measure is that of the images that the class is known of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation import bootstrap, calibration, metrics, subgroups, thresholds
from cxr.evaluation.summary import class_metrics, operating_points
from cxr.training import losses
from cxr.training.augmentation import mixup
from cxr.training.data import label_tensor
from cxr.training.params import Loss

PLAIN = Loss(max_pos_weight=1, focal_gamma=0, label_smoothing=0)


def planted(seed: int, images: int = 120) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Labels, a quarter of them unknown, all of the last class; and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    truth = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    probabilities = (truth + 2 * random.random(truth.shape)).round(1) / 3
    labels = np.where(random.random(truth.shape) < 0.25, np.uint8(UNKNOWN), truth)
    labels[:, -1] = UNKNOWN
    return labels, probabilities


MEASURES: dict[str, Callable[[Any, Any], Any]] = {
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
    "enough": lambda labels, _: subgroups.enough(labels),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("seed", range(2))
def test_a_measure_is_that_of_the_known_images(name: str, seed: int) -> None:
    labels, probabilities = planted(seed)
    found = MEASURES[name](labels, probabilities)
    for column in range(len(CLASSES) - 1):
        known = labels[:, column] != UNKNOWN
        alone = MEASURES[name](labels[known][:, [column]], probabilities[known][:, [column]])
        np.testing.assert_allclose(found[column], alone[0], rtol=1e-12)


def test_intervals_are_those_of_the_known_images() -> None:
    labels, probabilities = planted(1)
    drawn = bootstrap.bootstrap_patients(np.arange(len(labels)) // 2, 200, 1)
    found = bootstrap.auroc_and_average_precision(labels, probabilities, drawn)
    for column in range(len(CLASSES) - 1):
        known = labels[:, column] != UNKNOWN
        alone = bootstrap.auroc_and_average_precision(
            labels[known][:, [column]], probabilities[known][:, [column]], drawn.of(known)
        )
        for whole, part in zip(found, alone, strict=True):
            np.testing.assert_array_equal(whole.resampled[:, column], part.resampled[:, 0])
            np.testing.assert_array_equal(whole.interval()[column], part.interval()[0])


def test_a_class_that_nobody_knows_has_no_measure_and_is_never_called() -> None:
    labels, probabilities = planted(2)
    limits = thresholds.choose_thresholds("f1", labels, probabilities, 1)
    table = class_metrics(labels, probabilities, limits)
    last = table.iloc[-1]
    assert np.isnan(limits[-1])
    assert last["images"] == 0
    assert np.isnan(last[["auroc", "average_precision", "accuracy", "precision", "recall", "f1"]].astype(float)).all()
    assert last[["true_negatives", "false_positives", "false_negatives", "true_positives"]].sum() == 0
    fitted = calibration.fit(labels, probabilities)
    assert fitted.not_fitted[-1]
    assert np.isnan(fitted.apply(limits[None])[0, -1])


def test_operating_points_count_known_images_alone() -> None:
    labels, probabilities = planted(3)
    called, drawn = probabilities > 0.5, bootstrap.bootstrap_patients(np.arange(len(labels)), 100, 1)
    points = operating_points(labels, called, np.full(len(CLASSES), 0.5), "f1", drawn)["classes"]
    for column, name in enumerate(CLASSES[:-1]):
        ours, truth = called[:, column], labels[:, column]
        assert points[name]["sensitivity"]["value"] == pytest.approx(ours[truth == 1].mean())
        assert points[name]["specificity"]["value"] == pytest.approx((~ours)[truth == 0].mean())
        assert points[name]["ppv"]["value"] == pytest.approx(
            (truth[ours] == 1).sum() / np.isin(truth[ours], (0, 1)).sum()
        )
        assert points[name]["npv"]["value"] == pytest.approx(
            (truth[~ours] == 0).sum() / np.isin(truth[~ours], (0, 1)).sum()
        )
    assert points[CLASSES[-1]]["ppv"]["value"] is None


@pytest.mark.parametrize("focal_gamma", [0.0, 1.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_an_unknown_label_adds_nothing_to_the_loss(focal_gamma: float, label_smoothing: float) -> None:
    labels = label_tensor(planted(4, 8)[0], torch.device("cpu"))
    logits = torch.linspace(-3, 3, labels.numel()).view_as(labels).requires_grad_()
    loss = Loss(max_pos_weight=1, focal_gamma=focal_gamma, label_smoothing=label_smoothing)
    whole = losses.multi_label_loss(logits, labels, loss)
    (gradient,) = torch.autograd.grad(whole, logits)
    known = ~labels.isnan()
    alone = losses.multi_label_loss(logits[known][None], labels[known][None], loss)
    assert float(whole.detach()) == pytest.approx(float(alone.detach()) * float(known.float().mean()))
    assert not gradient[~known].any()
    assert gradient[known].all()


def test_plain_cross_entropy_knows_no_unknown_label_either() -> None:
    labels = label_tensor(planted(5)[0], torch.device("cpu"))
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    assert losses.bce_loss(logits, labels) == losses.multi_label_loss(logits, labels, PLAIN)


def test_weights_and_odds_count_known_labels() -> None:
    labels, _ = planted(6)
    tensor = label_tensor(labels, torch.device("cpu"))
    weights, odds = losses.pos_weights(tensor, 5), losses.prior_logits(tensor)
    assert weights is not None
    for column in range(len(CLASSES) - 1):
        positives, negatives = (labels[:, column] == 1).sum(), (labels[:, column] == 0).sum()
        assert float(weights[column]) == pytest.approx(min(max(negatives / positives, 1), 5))
        assert float(odds[column]) == pytest.approx(np.log((positives + 0.5) / (negatives + 0.5)), abs=1e-6)
    assert [float(weights[-1]), float(odds[-1])] == [1, 0]


def test_mixup_with_an_unknown_label_is_unknown() -> None:
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    _, mixed = mixup(torch.zeros(2, 1, 4, 4), labels, torch.tensor(0.75))
    torch.testing.assert_close(mixed, torch.tensor([[0.75, torch.nan], [0.25, torch.nan]]), equal_nan=True)
