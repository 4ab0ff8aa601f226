"""Prediction: what a network says of images."""

import numpy as np
import torch
from torch import Tensor, nn

from cxr.batches import Pixels
from cxr.processes import ALONE, Processes


def predict_logits(network: nn.Module, pixels: Pixels, batch_size: int, processes: Processes = ALONE) -> Tensor:
    """Logits of all of `pixels` in their order, float32 [images, 15], on their device; each process does its share."""
    network.eval()
    places = processes.share(np.arange(len(pixels)))
    batches = np.split(places, range(batch_size, len(places), batch_size))
    with torch.inference_mode():
        return processes.gather(torch.cat([network(images).float() for images in pixels.batches(batches)]))
