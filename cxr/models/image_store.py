"""The image store: images of a memory-mapped array, loaded onto a device in batches."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr.core.errors import warn
from cxr.core.prefetch import prefetch_map

# Images are kept on a GPU if they take at most this fraction of its free memory.
RESIDENT_FRACTION = 0.5
# Batches that are read in advance when images are streamed.
PREFETCH_BATCHES = 4


class ImageStore:
    """A subset of the images of an array, loaded onto a device in batches."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        device: torch.device,
        *,
        resident: bool | None = None,
    ) -> None:
        """Create a store of the images at `rows`.

        Args:
            images: memory-mapped array, uint8 [images, height, width].
            rows: rows of `images` in this store, int [n].
            device: the device that batches are loaded onto.
            resident: True to keep all images on the device, False to read each batch from the memory map; by
                default they are kept on a GPU with enough free memory. Batches are the same either way.
        """
        self._images, self._rows, self._device = images, rows, device
        needed, limit = len(rows) * images[0].size, memory_limit(device)
        if resident is None:
            resident = device.type == "cuda" and needed <= limit
        self._resident = _copy_to_device(images, rows, device) if resident else None
        if needed > limit:
            warn(
                f"{len(rows):,} images take {needed / 1e9:.1f} GB, more than the {limit / 1e9:.1f} GB of memory for "
                "them: every epoch reads them from disk; lower image_size or sample.size to train faster"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, batches: list[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Load batches, each given by the indices of its images in this store.

        Yields:
            Float [images, 1, height, width], from 0 to 1, on the device. The transfers are asynchronous.
        """
        if self._resident is not None:
            for indices in to_device(batches, self._device):
                yield _as_float(self._resident[indices])
        else:
            for images in prefetch_map(self.read, batches, workers=1, ahead=PREFETCH_BATCHES):
                yield _as_float(images.to(self._device, non_blocking=True))

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Copy images from the memory map, uint8 [images, height, width], in pinned memory if the device is a GPU."""
        buffer = torch.empty(
            (len(indices), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        # All indices are within bounds; mode="raise", which checks them, would copy once more.
        np.take(self._images, self._rows[indices], axis=0, out=buffer.numpy(), mode="clip")
        return buffer


def memory_limit(device: torch.device) -> float:
    """Return the limit for images in bytes: a fraction of a GPU's free memory, or the memory of the machine."""
    if device.type == "cuda":
        return RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def to_device(batches: list[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, ...]:
    """Return the indices of each batch on the device, moved in one transfer."""
    return copy_array(np.concatenate(batches), device).split([len(batch) for batch in batches])


def copy_array(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return a tensor of `values` on the device. The transfer to a GPU is from pinned memory, so no step waits."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _as_float(images: Tensor) -> Tensor:
    return images.unsqueeze(1) / 255


def _copy_to_device(images: NDArray[np.uint8], rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy the images at `rows` in chunks, so that host memory never holds all of them."""
    copy = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), 1000):
        chunk = rows[start : start + 1000]
        copy[start : start + len(chunk)] = torch.from_numpy(images[chunk])
    return copy
