"""Loss functions: binary cross-entropy of each class and its variants.

Labels are float [images, classes], from 0 to 1, and nan if unknown. An unknown label contributes neither loss nor
gradient. Means are taken over all labels, known or unknown, so a label has the same weight in every batch and process.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cxr.training.params import Loss


def multi_label_loss(logits: Tensor, labels: Tensor, loss: Loss, pos_weight: Tensor | None = None) -> Tensor:
    """Compute the mean loss over images and classes, float scalar: binary cross-entropy with the variants in `loss`.

    The focal factor is |label - probability|^gamma. It equals that of Lin et al. (ICCV 2017) for labels of 0 and 1,
    and the quality focal loss of Li et al. (NeurIPS 2020) for labels in between, as from mixup and label smoothing.

    Args:
        logits: float [images, classes].
        labels: float [images, classes].
        loss: the variants and their parameters.
        pos_weight: weight of the positives of each class, float [classes]; see `pos_weights`.
    """
    known, labels = _known_and_labels(labels)
    if loss.label_smoothing:
        labels = torch.lerp(labels, torch.full_like(labels, 0.5), loss.label_smoothing)
    if not loss.focal_gamma:
        return functional.binary_cross_entropy_with_logits(logits, labels, known, pos_weight=pos_weight)
    each = functional.binary_cross_entropy_with_logits(logits, labels, known, pos_weight=pos_weight, reduction="none")
    # For gamma below 1, the derivative of the power is infinite at 0.
    distance = (labels - torch.sigmoid(logits)).abs().clamp(min=1e-6)
    return (distance**loss.focal_gamma * each).mean()


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy, float scalar, of `logits` and `labels`, float [images, classes]."""
    known, labels = _known_and_labels(labels)
    return functional.binary_cross_entropy_with_logits(logits, labels, known)


def pos_weights(labels: Tensor, max_pos_weight: float) -> Tensor | None:
    """Return negatives / positives of each class, clipped to 1 and `max_pos_weight`, float [classes].

    The limit keeps rare classes from dominating the loss: Hernia's ratio is about 490 in ChestX-ray14.

    Args:
        labels: float [images, classes], 0, 1 or nan.
        max_pos_weight: at least 1. With 1 no class is weighted, and None is returned.
    """
    if max_pos_weight == 1:
        return None
    positives, negatives = _count_labels(labels)
    # A class without known labels gives 0 / 0; its weight has no effect.
    return (negatives / positives).nan_to_num(1, posinf=max_pos_weight).clamp(1, max_pos_weight)


def prior_logits(labels: Tensor) -> Tensor:
    """Return the log-odds of each class, float [classes], with 0.5 added to both counts to keep them finite."""
    positives, negatives = _count_labels(labels)
    return torch.log((positives + 0.5) / (negatives + 0.5))


def _count_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of positives and of negatives of each class, float [classes] each."""
    return (labels == 1).sum(dim=0).float(), (labels == 0).sum(dim=0).float()


def _known_and_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of each label, 1 if known and 0 if unknown, and the labels with 0.5 in place of nan."""
    return (~labels.isnan()).float(), labels.nan_to_num(0.5)
