"""Prediction: what a network says of images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr.core.progress import progress
from cxr.models.distributed import SINGLE, DistContext
from cxr.models.image_store import ImageStore


def predict_logits(network: nn.Module, pixels: ImageStore, batch_size: int, processes: DistContext = SINGLE) -> Tensor:
    """Logits of all of `pixels` in their order, float32 [images, 15], on their device; each process does its share."""
    network.eval()
    batches = in_order(processes.share(np.arange(len(pixels))), batch_size)
    with torch.inference_mode():
        seen = pixels.batches(batches)
        shown = progress(seen, "validate", len(batches), "batches") if processes.is_first else seen
        return processes.gather(torch.cat([network(images).float() for images in shown]))


def in_order(places: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Part `places` into batches, without changing their order; the last may be smaller."""
    return np.split(places, range(batch_size, len(places), batch_size))
