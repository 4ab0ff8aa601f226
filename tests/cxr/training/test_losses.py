import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from cxr.training.losses import multi_label_loss, pos_weights, prior_logits
from cxr.training.params import Loss

OFF = Loss(max_pos_weight=1, focal_gamma=0, label_smoothing=0)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(20, 15, generator=random), (torch.rand(20, 15, generator=random) < 0.3).float()


def test_without_variants_the_loss_is_binary_cross_entropy() -> None:
    logits, labels = batch()
    loss = multi_label_loss(logits, labels, OFF)
    assert torch.equal(loss, functional.binary_cross_entropy_with_logits(logits, labels))
    expected = log_loss(labels.flatten().numpy(), logits.sigmoid().double().flatten().numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@given(seed=st.integers(0, 1000), gamma=st.floats(0.5, 5))
def test_the_focal_loss_is_that_of_torchvision_without_alpha(seed: int, gamma: float) -> None:
    logits, labels = batch(seed)
    expected = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=gamma, reduction="mean")
    loss = multi_label_loss(logits, labels, OFF.model_copy(update={"focal_gamma": gamma}))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_the_focal_loss_approaches_binary_cross_entropy_as_gamma_falls_to_0() -> None:
    logits, labels = batch()
    losses = [multi_label_loss(logits, labels, OFF.model_copy(update={"focal_gamma": gamma})) for gamma in (1e-4, 0)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=0)


def test_the_focal_gradient_is_finite_if_the_probability_equals_the_label() -> None:
    logits = torch.zeros(2, 15, requires_grad=True)
    multi_label_loss(logits, torch.full((2, 15), 0.5), OFF.model_copy(update={"focal_gamma": 0.5})).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing_moves_labels_towards_a_half() -> None:
    logits, labels = batch()
    smoothed = multi_label_loss(logits, labels, OFF.model_copy(update={"label_smoothing": 0.2}))
    expected = functional.binary_cross_entropy_with_logits(logits, 0.1 + 0.8 * labels)
    torch.testing.assert_close(smoothed, expected)


def test_pos_weight_is_negatives_over_positives_up_to_the_limit() -> None:
    labels = torch.zeros(100, 15)
    for column, positives in enumerate((0, 1, 20, 50, 80)):
        labels[:positives, column] = 1
    weights = pos_weights(labels, 10)
    assert weights is not None
    assert weights[:5].tolist() == [10, 10, 4, 1, 1]
    assert pos_weights(labels, 1) is None
    logits, some = batch()
    each = functional.binary_cross_entropy_with_logits(logits, some, reduction="none")
    expected = torch.where(some > 0, each * weights, each).mean()
    torch.testing.assert_close(multi_label_loss(logits, some, OFF, weights), expected)


def test_prior_logits_are_those_of_the_prevalence_and_finite_without_positives_or_negatives() -> None:
    labels = torch.zeros(1000, 15)
    labels[:250, 0], labels[:, 1] = 1, 1
    found = prior_logits(labels)
    assert found[0].sigmoid().item() == pytest.approx(0.25, abs=1e-3)
    assert found[2].sigmoid().item() == pytest.approx(0.0005, abs=1e-4)
    assert np.isfinite(found.numpy()).all()
