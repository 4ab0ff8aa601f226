import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr.models import image_store
from cxr.models.image_store import PREFETCH_BATCHES, ImageStore, to_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("resident", [False, True])
def test_a_batch_has_the_images_at_its_indices_in_the_store(resident: bool) -> None:
    images = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)
    store = ImageStore(images, np.array([9, 2, 5]), CPU, resident=resident)
    batch = next(store.batches([np.array([2, 0])]))
    assert len(store) == 3
    assert batch.shape == (2, 1, 2, 2)
    assert torch.equal(batch * 255, torch.from_numpy(images[[5, 9]]).unsqueeze(1).float())


def test_streamed_and_resident_batches_have_the_same_bits() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2050, 4, 4), np.uint8)
    rows = np.arange(2050)[::-1].copy()
    batches = np.array_split(np.random.default_rng(1).permutation(2050), 7)
    streamed, resident = (
        list(ImageStore(images, rows, CPU, resident=resident).batches(batches)) for resident in (False, True)
    )
    assert len(streamed) == 7
    assert all(map(torch.equal, streamed, resident))


def test_batches_are_read_from_the_map_in_advance() -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8), np.uint8)
    rows, read = np.arange(400), []

    class RecordingStore(ImageStore):
        def read(self, indices: NDArray[np.int64]) -> torch.Tensor:
            read.append(int(indices[0]))
            return super().read(indices)

    batches = RecordingStore(images, rows, CPU).batches(np.split(rows, 100))
    next(batches)
    deadline = time.monotonic() + 10
    while len(read) < 1 + PREFETCH_BATCHES and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read) == 1 + PREFETCH_BATCHES
    for _ in range(10):
        next(batches)
    assert read == [4 * number for number in range(len(read))]


def test_the_indices_of_each_batch_are_moved_to_the_device() -> None:
    batches = [np.array([3, 1]), np.array([2])]
    assert [indices.tolist() for indices in to_device(batches, CPU)] == [[3, 1], [2]]


def test_images_larger_than_memory_are_streamed_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_store, "memory_limit", lambda _: 30)
    images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    store = ImageStore(images, np.arange(10), CPU)
    assert "reads them from disk" in capsys.readouterr().err
    assert torch.equal(next(store.batches([np.array([3])])).flatten() * 255, torch.tensor([12.0, 13, 14, 15]))
