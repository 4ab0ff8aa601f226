"""The image store: images of one array, read by batch onto the device."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr.core.errors import InputError, warn
from cxr.core.prefetch import prefetch_map

# The images stay on a GPU where they take no more than this share of its free memory.
RESIDENT_SHARE = 0.5
# Batches that are read before their turn, where they do not: a disk's delay is as long as a step at most.
BATCHES_AHEAD = 4


def open_images(path: Path, count: int) -> NDArray[np.uint8]:
    """Map `data/images.npy`, uint8 [count, height, width], read-only: it is read as it is needed.

    Raises:
        InputError: where the file is missing, broken, or holds another number of images.
    """
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise InputError(f"there is no {path}; run `python -m stages.resize`, or `dvc repro`") from None
    except ValueError as error:
        raise InputError(f"{path} is not an array of images: {error}; run `python -m stages.resize`") from None
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != count:
        raise InputError(f"{path} holds {images.dtype} {images.shape}, not {count} gray images; run resize again")
    return images


class ImageStore:
    """Some of the images of an array, ready to be taken to a device by batch."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        device: torch.device,
        *,
        resident: bool | None = None,
    ) -> None:
        """Take the images at `rows`.

        Args:
            images: uint8 [images, height, width], mapped.
            rows: int [ours].
            device: where they are taken to.
            resident: whether all of them lie on the device, or each batch is read when it is needed; by default a GPU
                that has room for them keeps them. The batches are the same.
        """
        self._images, self._rows, self._device = images, rows, device
        needed, on_gpu = len(rows) * images[0].size, device.type == "cuda"
        room = RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] if on_gpu else _memory()
        if resident is None:
            resident = on_gpu and needed <= room
        self._resident = _copied(images, rows, device) if resident else None
        if needed > room:
            warn(
                f"{len(rows):,} images take {needed / 1e9:.1f} GB, and there is room for {room / 1e9:.1f} GB: every "
                "epoch reads them from the disk again; a smaller image_size or sample.size is faster"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, batches: list[NDArray[np.int64]]) -> Iterator[Tensor]:
        """The images at the places of each batch among ours, float [images, 1, height, width], 0 to 1, on the device.

        The same bits wherever they lie. No batch makes the device wait for the host.
        """
        if self._resident is not None:
            for places in on_device(batches, self._device):
                yield _as_float(self._resident[places])
        else:
            for images in prefetch_map(self._read, batches, workers=1, ahead=BATCHES_AHEAD):
                yield _as_float(images.to(self._device, non_blocking=True))

    def _read(self, places: NDArray[np.int64]) -> Tensor:
        """Copy images from the map: into memory that a GPU can fetch by itself, where there is one."""
        buffer = torch.empty(
            (len(places), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        # Places are within the array; checking them (mode="raise") would cost another copy.
        np.take(self._images, self._rows[places], axis=0, out=buffer.numpy(), mode="clip")
        return buffer


def _as_float(images: Tensor) -> Tensor:
    return images.unsqueeze(1) / 255


def on_device(batches: list[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, ...]:
    """The places of each batch on the device, sent at once: a transfer for each would make each step wait."""
    return torch.from_numpy(np.concatenate(batches)).to(device).split([len(batch) for batch in batches])


def _copied(images: NDArray[np.uint8], rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """The images at `rows` on the device, a thousand at a time: the host never holds them all."""
    copy = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), 1000):
        part = rows[start : start + 1000]
        copy[start : start + len(part)] = torch.from_numpy(images[part])
    return copy


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
