"""Prediction: what a network says of images."""

import torch
from torch import Tensor, nn

from cxr.batches import Pixels


def predict_logits(classifier: nn.Module, pixels: Pixels, batch_size: int) -> Tensor:
    """Logits of all of `pixels` in their order, float32 [images, 15], on their device."""
    classifier.eval()
    with torch.inference_mode():
        return torch.cat([classifier(batch).float() for batch in pixels.in_order(batch_size)])
