import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.models.distributed import DistContext
from cxr.models.image_store import BATCHES_AHEAD, ImageStore, open_images
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.params import Augment

CPU = torch.device("cpu")
STRENGTH = Augment(
    hflip=0.5, degrees=10, translate=0.1, scale=0.1, shear=1, brightness=0.1, contrast=0.1, random_erasing=0.5
)


@given(st.integers(1, 400), st.integers(2, 64), st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_an_epoch_sees_every_image_once_in_even_batches(images: int, batch_size: int, seed: int, epoch: int) -> None:
    plan = EpochPlan.plan(images, batch_size, 0.2, seed, epoch)
    sizes = [len(batch) for batch in plan.batches]
    assert sorted(np.concatenate(plan.batches)) == list(range(images))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(plan.draws) == images
    assert all(0 <= share <= 1 for share in plan.shares)


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    first, again = EpochPlan.plan(100, 16, 0.2, 7, 3), EpochPlan.plan(100, 16, 0.2, 7, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first.batches, again.batches, strict=True))
    assert np.array_equal(first.draws, again.draws)
    for other in (EpochPlan.plan(100, 16, 0.2, 7, 4), EpochPlan.plan(100, 16, 0.2, 8, 3)):
        assert not np.array_equal(first.draws, other.draws)
        assert not np.array_equal(first.batches[0], other.batches[0])


def test_without_mixup_each_image_keeps_all_of_its_own() -> None:
    assert (EpochPlan.plan(50, 16, 0.0, 1, 1).shares == 1).all()


def test_pixels_are_those_of_the_rows_asked_for() -> None:
    images = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)
    pixels = ImageStore(images, np.array([9, 2, 5]), CPU)
    taken = next(pixels.batches([np.array([2, 0])]))
    assert taken.shape == (2, 1, 2, 2)
    assert torch.equal(taken * 255, torch.from_numpy(images[[5, 9]]).unsqueeze(1).float())


def test_streamed_and_resident_steps_have_the_same_bits() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    rows, labels = np.arange(1, 30), torch.rand(29, 15)
    plan = EpochPlan.plan(29, 4, 0.2, 1, 1)
    streamed, resident = (
        list(plan.steps(ImageStore(images, rows, CPU, resident=resident), labels, STRENGTH))
        for resident in (False, True)
    )
    assert len(streamed) == len(plan.batches)
    for step, other in zip(streamed, resident, strict=True):
        assert torch.equal(step[0], other[0])
        assert torch.equal(step[1], other[1])


def test_images_are_read_from_the_map_ahead_of_their_step() -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8), np.uint8)
    rows, read = np.arange(400), []

    class Watched(ImageStore):
        def _read(self, places: NDArray[np.int64]) -> torch.Tensor:
            read.append(int(places[0]))
            return super()._read(places)

    batches = Watched(images, rows, CPU).batches(np.split(rows, 100))
    next(batches)
    deadline = time.monotonic() + 10
    while len(read) < 1 + BATCHES_AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read) == 1 + BATCHES_AHEAD
    for _ in range(10):
        next(batches)
    assert read == [4 * number for number in range(len(read))]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_batches(count: int) -> None:
    plan = EpochPlan.plan(50, 16, 0.2, 1, 1)
    shares = [plan.share(DistContext(rank, count)) for rank in range(count)]
    for step, batch in enumerate(plan.batches):
        parts = [share.batches[step] for share in shares]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_too_small_for_all_processes_are_refused() -> None:
    with pytest.raises(InputError, match="too small for 3 devices: raise batch_size"):
        EpochPlan.plan(50, 5, 0.2, 1, 1).share(DistContext(0, 3))


def test_an_array_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    with pytest.raises(InputError, match=r"there is no .*images\.npy"):
        open_images(path, 3)
    np.save(path, np.zeros((3, 4, 4), np.float32))
    with pytest.raises(InputError, match="float32"):
        open_images(path, 3)
    np.save(path, np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(InputError, match="not 3 gray images"):
        open_images(path, 3)
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match="not an array"):
        open_images(path, 3)


def test_images_larger_than_memory_are_streamed_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cxr.models.image_store._memory", lambda: 30)
    images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    pixels = ImageStore(images, np.arange(10), CPU)
    assert "reads them from the disk" in capsys.readouterr().err
    assert torch.equal(next(pixels.batches([np.array([3])])).flatten() * 255, torch.tensor([12.0, 13, 14, 15]))
