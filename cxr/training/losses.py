"""What training makes small: binary cross-entropy of each class, and its variants.

Labels are float [images, classes], from 0 to 1, and nan where nobody knows: such a label adds nothing, and has no
gradient. Means are over all labels, known or not, so that one counts the same in any batch and any process.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cxr.training.params import Loss


def multi_label_loss(logits: Tensor, labels: Tensor, loss: Loss, positive_weight: Tensor | None = None) -> Tensor:
    """The mean over images and classes, float scalar; with all of `loss` off it is binary cross-entropy.

    The focal factor is |label - probability|^gamma, which is that of Lin et al. (ICCV 2017) for labels of 0 and 1, and
    the one of Li et al. (NeurIPS 2020, quality focal loss) for those in between, as mixup and smoothing make them.

    Args:
        logits: float [images, classes].
        labels: float [images, classes].
        loss: which variants, and how strong.
        positive_weight: float [classes], what a positive weighs of each; see `positive_weights`.
    """
    known, labels = _parted(labels)
    if loss.label_smoothing:
        labels = torch.lerp(labels, torch.full_like(labels, 0.5), loss.label_smoothing)
    if not loss.focal_gamma:
        return functional.binary_cross_entropy_with_logits(logits, labels, known, pos_weight=positive_weight)
    each = functional.binary_cross_entropy_with_logits(
        logits, labels, known, pos_weight=positive_weight, reduction="none"
    )
    # The power's slope at 0 is infinite for a gamma below 1.
    distance = (labels - torch.sigmoid(logits)).abs().clamp(min=1e-6)
    return (distance**loss.focal_gamma * each).mean()


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy without any variant, float scalar; both are float [images, classes]."""
    known, labels = _parted(labels)
    return functional.binary_cross_entropy_with_logits(logits, labels, known)


def pos_weights(labels: Tensor, cap: float) -> Tensor | None:
    """Negatives / positives of each class, from 1 to `cap`, float [classes]; None where none would weigh more than 1.

    Without the cap a class of which there are few would rule: Hernia's weight is about 490 on NIH's data.

    Args:
        labels: float [images, classes], 0, 1 or nan.
        cap: 1 or more.
    """
    if cap == 1:
        return None
    positives, negatives = _counts(labels)
    # 0 / 0, where no label is known, weighs nothing: 1 will do.
    return (negatives / positives).nan_to_num(1, posinf=cap).clamp(1, cap)


def prior_logits(labels: Tensor) -> Tensor:
    """The log-odds of each class, float [classes]; half an image more on either side keeps them finite."""
    positives, negatives = _counts(labels)
    return torch.log((positives + 0.5) / (negatives + 0.5))


def _counts(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images with each class and images known to be without it, float [classes] each."""
    return (labels == 1).sum(dim=0).float(), (labels == 0).sum(dim=0).float()


def _parted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of each label, 1 or, where it is unknown, 0; and the labels with some number there."""
    return (~labels.isnan()).float(), labels.nan_to_num(0.5)
