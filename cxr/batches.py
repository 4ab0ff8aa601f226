"""Batches: which images each step sees, and their pixels on the device."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr import augment
from cxr.errors import InputError, warn
from cxr.params import Augment

# The images stay on a GPU where they take no more than this share of its free memory.
RESIDENT_SHARE = 0.5


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


class Pixels:
    """Some of the images of an array, ready to be taken to a device by batch."""

    def __init__(self, images: NDArray[np.uint8], rows: NDArray[np.int64], device: torch.device) -> None:
        """Keep the images at `rows` on a GPU that has room for them; else they are read as they are needed."""
        self._images, self._rows, self._device = images, rows, device
        needed = len(rows) * images[0].size
        room = RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _memory()
        self._resident = _copied(images, rows, device) if device.type == "cuda" and needed <= room else None
        if needed > room:
            warn(
                f"{len(rows):,} images take {needed / 1e9:.1f} GB, and there is room for {room / 1e9:.1f} GB: every "
                "epoch reads them from the disk again; a smaller image_size or sample.size is faster"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, places: Tensor) -> Tensor:
        """The images at `places` among ours, float [len(places), 1, height, width] from 0 to 1, on the device."""
        if self._resident is not None:
            batch = self._resident[places]
        else:
            batch = torch.from_numpy(self._images[self._rows[places.cpu().numpy()]]).to(self._device)
        return batch.unsqueeze(1).to(torch.float32).div_(255)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All of the images in their own order, batch by batch."""
        for places in torch.arange(len(self), device=self._device).split(batch_size):
            yield self.take(places)


@dataclass(frozen=True)
class Epoch:
    """All that chance decides in one epoch: a function of (seed, epoch), so a resumed training needs no more."""

    batches: list[NDArray[np.int64]]  # the images of each step
    draws: NDArray[np.float32]  # of each image, for augmentation
    shares: NDArray[np.float32]  # of each step, for mixup

    @classmethod
    def plan(cls, images: int, batch_size: int, mixup: float, seed: int, epoch: int) -> "Epoch":
        """Every image once, in batches whose sizes differ by one at most: none is left over."""
        random = np.random.default_rng([seed, epoch])
        batches = np.array_split(random.permutation(images), -(-images // batch_size))
        draws = augment.draw(images, random)
        shares = random.beta(mixup, mixup, len(batches)) if mixup else np.ones(len(batches))
        return cls(batches, draws, shares.astype(np.float32))

    def steps(self, pixels: Pixels, labels: Tensor, strength: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """The augmented pixels and mixed labels of each step, on the device of `labels`."""
        # All at once: a transfer for each step would make each step wait for the device.
        order, draws, shares = (
            torch.from_numpy(values).to(labels.device)
            for values in (np.concatenate(self.batches), self.draws, self.shares)
        )
        for places, share in zip(order.split([len(batch) for batch in self.batches]), shares, strict=True):
            varied = augment.augment(pixels.take(places), draws[places], strength)
            yield augment.mixup(varied, labels[places], share)


def _copied(images: NDArray[np.uint8], rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """The images at `rows` on the device, a thousand at a time: the host never holds them all."""
    copy = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), 1000):
        part = rows[start : start + 1000]
        copy[start : start + len(part)] = torch.from_numpy(images[part])
    return copy


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
