import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxr.core.errors import InputError
from cxr.models.distributed import DistContext
from cxr.models.image_store import ImageStore
from cxr.training.augmentation import NUM_AUGMENTATION_PARAMS
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.params import Augment

CPU = torch.device("cpu")
STRENGTH = Augment(
    hflip=0.5, degrees=10, translate=0.1, scale=0.1, shear=1, brightness=0.1, contrast=0.1, random_erasing=0.5
)


@given(st.integers(1, 400), st.integers(2, 64), st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_the_batches_of_an_epoch_have_one_size_and_no_image_twice(
    images: int, batch_size: int, seed: int, epoch: int
) -> None:
    plan = EpochPlan.create(images, batch_size, 0.2, seed, epoch)
    (size,) = {len(batch) for batch in plan.batches}
    used = set(np.concatenate(plan.batches).tolist())
    assert 1 <= size <= batch_size
    assert len(used) == size * len(plan.batches)
    assert used <= set(range(images))
    assert images - len(used) < len(plan.batches) == -(-images // batch_size)
    assert plan.augmentation_params.shape == (images, NUM_AUGMENTATION_PARAMS)
    assert len(plan.mixup_lambdas) == len(plan.batches)
    assert all(0 <= mixup_lambda <= 1 for mixup_lambda in plan.mixup_lambdas)


def test_each_epoch_leaves_out_other_images() -> None:
    plans = [EpochPlan.create(100, 16, 0.2, 1, epoch) for epoch in range(1, 101)]
    left_out = [set(range(100)) - set(np.concatenate(plan.batches).tolist()) for plan in plans]
    assert {len(images) for images in left_out} == {2}  # seven batches of 14
    assert len(set.union(*left_out)) > 75  # expected: 100 (1 - 0.98^100) = 87


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    first, again = EpochPlan.create(100, 16, 0.2, 7, 3), EpochPlan.create(100, 16, 0.2, 7, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first.batches, again.batches, strict=True))
    assert np.array_equal(first.augmentation_params, again.augmentation_params)
    for other in (EpochPlan.create(100, 16, 0.2, 7, 4), EpochPlan.create(100, 16, 0.2, 8, 3)):
        assert not np.array_equal(first.augmentation_params, other.augmentation_params)
        assert not np.array_equal(first.batches[0], other.batches[0])


def test_without_mixup_every_lambda_is_one() -> None:
    assert (EpochPlan.create(50, 16, 0.0, 1, 1).mixup_lambdas == 1).all()


def test_streamed_and_resident_steps_have_the_same_bits() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    rows, labels = np.arange(1, 30), torch.rand(29, 15)
    plan = EpochPlan.create(29, 4, 0.2, 1, 1)
    streamed, resident = (
        list(plan.steps(ImageStore(images, rows, CPU, resident=resident), labels, STRENGTH))
        for resident in (False, True)
    )
    assert len(streamed) == len(plan.batches)
    for step, other in zip(streamed, resident, strict=True):
        assert torch.equal(step[0], other[0])
        assert torch.equal(step[1], other[1])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_shards_of_all_processes_are_the_batches(world_size: int) -> None:
    plan = EpochPlan.create(50, 16, 0.2, 1, 1)
    shards = [plan.shard(DistContext(rank, world_size)) for rank in range(world_size)]
    for step, batch in enumerate(plan.batches):
        parts = [shard.batches[step] for shard in shards]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_too_small_for_all_processes_are_refused() -> None:
    with pytest.raises(InputError, match="too small for 3 devices: raise batch_size"):
        EpochPlan.create(50, 5, 0.2, 1, 1).shard(DistContext(0, 3))
