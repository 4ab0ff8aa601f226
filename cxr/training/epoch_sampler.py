"""The batches of an epoch and the random parameters of its augmentation and mixup."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cxr.core.errors import InputError
from cxr.models.distributed import DistContext
from cxr.models.image_store import ImageStore, copy_array, to_device
from cxr.training import augmentation
from cxr.training.params import Augment


@dataclass(frozen=True)
class EpochPlan:
    """All random choices of one epoch. They depend on the seed and the epoch alone, so resuming needs no other state.

    Attributes:
        batches: indices of the images of each step, int [images] each.
        augmentation_params: float32 [images, NUM_AUGMENTATION_PARAMS], in the order of the images.
        mixup_lambdas: float32 [steps].
    """

    batches: list[NDArray[np.int64]]
    augmentation_params: NDArray[np.float32]
    mixup_lambdas: NDArray[np.float32]

    @classmethod
    def create(cls, images: int, batch_size: int, mixup_alpha: float, seed: int, epoch: int) -> "EpochPlan":
        """Shuffle the images into as few batches as possible, all of one size, which is at most `batch_size`.

        No image occurs twice. Fewer images than there are batches are left out, others in each epoch. A second size
        would double the plans of cuDNN and the time of compilation.
        """
        random = np.random.default_rng([seed, epoch])
        steps = -(-images // batch_size)
        size = images // steps
        batches = np.split(random.permutation(images)[: steps * size], steps)
        augmentation_params = augmentation.draw_augmentation_params(images, random)
        lambdas = random.beta(mixup_alpha, mixup_alpha, len(batches)) if mixup_alpha else np.ones(len(batches))
        return cls(batches, augmentation_params, lambdas.astype(np.float32))

    def shard(self, dist: DistContext) -> "EpochPlan":
        """Return the plan with this process's shard of each batch.

        Raises:
            InputError: if the batches have fewer than two images for each process.
        """
        if len(self.batches[0]) < 2 * dist.world_size:
            raise InputError(
                f"batches of {len(self.batches[0])} images are too small for {dist.world_size} devices: raise "
                "batch_size, or lower devices; each device needs at least 2 images"
            )
        return replace(self, batches=[dist.shard(batch) for batch in self.batches])

    def steps(self, images: ImageStore, labels: Tensor, strength: Augment) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the augmented images and the labels of each step, after mixup, on the device of `labels`."""
        params, lambdas = (copy_array(each, labels.device) for each in (self.augmentation_params, self.mixup_lambdas))
        is_mixed = bool((self.mixup_lambdas < 1).any())
        indices_of_steps = to_device(self.batches, labels.device)
        for loaded, indices, mixup_lambda in zip(images.batches(self.batches), indices_of_steps, lambdas, strict=True):
            augmented, targets = augmentation.augment(loaded, params[indices], strength), labels[indices]
            yield augmentation.mixup(augmented, targets, mixup_lambda) if is_mixed else (augmented, targets)
