"""What training makes small: binary cross-entropy of each class, and its variants."""

import torch
from torch import Tensor
from torch.nn import functional

from cxr.params import Loss


def multi_label_loss(logits: Tensor, labels: Tensor, loss: Loss, positive_weight: Tensor | None = None) -> Tensor:
    """The mean over images and classes, float scalar; with all of `loss` off it is binary cross-entropy.

    The focal factor is |label - probability|^gamma, which is that of Lin et al. (ICCV 2017) for labels of 0 and 1, and
    the one of Li et al. (NeurIPS 2020, quality focal loss) for those in between, as mixup and smoothing make them.

    Args:
        logits: float [images, classes].
        labels: float [images, classes], from 0 to 1.
        loss: which variants, and how strong.
        positive_weight: float [classes], what a positive weighs of each; see `positive_weights`.
    """
    if loss.label_smoothing:
        labels = torch.lerp(labels, torch.full_like(labels, 0.5), loss.label_smoothing)
    if not loss.focal_gamma:
        return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive_weight)
    each = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive_weight, reduction="none")
    # The power's slope at 0 is infinite for a gamma below 1.
    distance = (labels - torch.sigmoid(logits)).abs().clamp(min=1e-6)
    return (distance**loss.focal_gamma * each).mean()


def positive_weights(labels: Tensor, cap: float) -> Tensor | None:
    """Negatives / positives of each class, from 1 to `cap`, float [classes]; None where none would weigh more than 1.

    Without the cap a class of which there are few would rule: Hernia's weight is about 490 on NIH's data.

    Args:
        labels: float [images, classes], 0 or 1.
        cap: 1 or more.
    """
    if cap == 1:
        return None
    positives = labels.sum(dim=0)
    return ((len(labels) - positives) / positives).clamp(1, cap)


def log_odds(labels: Tensor) -> Tensor:
    """The log-odds of each class, float [classes]; half an image more on either side keeps them finite."""
    positives = labels.sum(dim=0)
    return torch.log((positives + 0.5) / (len(labels) - positives + 0.5))
