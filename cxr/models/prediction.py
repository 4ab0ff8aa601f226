"""Logits of a network for all images of a store."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr.core.progress import progress
from cxr.models.distributed import SINGLE, DistContext
from cxr.models.image_store import ImageStore


def predict_logits(network: nn.Module, images: ImageStore, batch_size: int, dist: DistContext = SINGLE) -> Tensor:
    """Return the logits of all `images` in their order, float32 [images, 15], on the device of the store.

    Each process predicts its shard of the images; all processes return the logits of all images.
    """
    network.eval()
    batches = sequential_batches(dist.shard(np.arange(len(images))), batch_size)
    with torch.inference_mode():
        loaded = images.batches(batches)
        shown = progress(loaded, "validate", len(batches), "batches") if dist.is_main_process else loaded
        return dist.all_gather(torch.cat([network(batch).float() for batch in shown]))


def sequential_batches(indices: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Split `indices` into batches in the given order; the last batch may be smaller."""
    return np.split(indices, range(batch_size, len(indices), batch_size))
