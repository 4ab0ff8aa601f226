"""The batches and the random numbers of one epoch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr.core.errors import InputError
from cxr.models.distributed import DistContext
from cxr.models.image_store import ImageStore, on_device
from cxr.training import augmentation
from cxr.training.params import Augment


@dataclass(frozen=True)
class EpochPlan:
    """All that chance decides in one epoch: a function of (seed, epoch), so a resumed training needs no more."""

    batches: list[NDArray[np.int64]]  # the images of each step
    draws: NDArray[np.float32]  # of each image, for augmentation
    shares: NDArray[np.float32]  # of each step, for mixup

    @classmethod
    def plan(cls, images: int, batch_size: int, mixup: float, seed: int, epoch: int) -> "EpochPlan":
        """Every image once, in batches whose sizes differ by one at most: none is left over."""
        random = np.random.default_rng([seed, epoch])
        batches = np.array_split(random.permutation(images), -(-images // batch_size))
        draws = augmentation.draw_augmentation_params(images, random)
        shares = random.beta(mixup, mixup, len(batches)) if mixup else np.ones(len(batches))
        return cls(batches, draws, shares.astype(np.float32))

    def share(self, processes: DistContext) -> "EpochPlan":
        """One process's part of every batch.

        Raises:
            InputError: where a batch has too few images for all of them.
        """
        if min(len(batch) for batch in self.batches) < 2 * processes.count:
            raise InputError(
                f"batches of {len(self.batches[-1])} images are too small for {processes.count} devices: raise "
                "batch_size to twice that many or more, or lower devices"
            )
        return replace(self, batches=[processes.share(batch) for batch in self.batches])

    def steps(self, pixels: ImageStore, labels: Tensor, strength: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """The augmented pixels and mixed labels of each step, on the device of `labels`."""
        draws, shares = (torch.from_numpy(values).to(labels.device) for values in (self.draws, self.shares))
        is_mixed = bool((self.shares < 1).any())
        places_of_steps = on_device(self.batches, labels.device)
        for images, places, share in zip(pixels.batches(self.batches), places_of_steps, shares, strict=True):
            varied, targets = augmentation.augment(images, draws[places], strength), labels[places]
            yield augmentation.mixup(varied, targets, share) if is_mixed else (varied, targets)
