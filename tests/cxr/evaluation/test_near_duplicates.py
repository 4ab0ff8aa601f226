import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from cxr.datasets.nih import read_table
from cxr.evaluation import near_duplicates

Images = NDArray[np.uint8]
SPLIT_OF_EACH = ["train"] * 28 + ["val"] * 6 + ["test"] * 6


def make_images(count: int = 40, side: int = 96, seed: int = 0) -> Images:
    """Return smooth random images with a common component, as radiographs of one body part have."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(1, 12, 12)) + random.normal(size=(count, 12, 12))
    coarse = coarse.astype(np.float32)
    shapes = [Image.fromarray(shape).resize((side, side), Image.Resampling.BICUBIC) for shape in coarse]
    return np.clip(np.stack([np.asarray(shape) for shape in shapes]) * 30 + 110, 0, 255).astype(np.uint8)


def found_in(images: Images, splits: list[str] | None = None) -> pd.DataFrame:
    return near_duplicates.near_duplicates(
        images, [f"{row}.png" for row in range(len(images))], splits or SPLIT_OF_EACH
    )


def names_of(found: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(found["image_a"], found["image_b"], strict=True))


def test_different_images_are_no_duplicates() -> None:
    found = found_in(make_images())
    assert found.empty
    assert list(found.columns) == ["image_a", "split_a", "image_b", "split_b", "distance", "correlation"]


def test_copies_in_other_splits_are_found_however_they_were_encoded() -> None:
    images = make_images()
    noise = np.random.default_rng(1).normal(0, 8, images[0].shape)
    images[28] = images[3]
    images[29] = np.clip(images[4] * 0.7 + 50, 0, 255).astype(np.uint8)
    images[34] = np.clip(images[5] + noise, 0, 255).astype(np.uint8)
    images[35] = np.asarray(Image.fromarray(images[30]).resize((50, 50)).resize((96, 96)))
    found = found_in(images)
    assert names_of(found) == {("3.png", "28.png"), ("4.png", "29.png"), ("5.png", "34.png"), ("30.png", "35.png")}
    first = found.iloc[0].to_dict()
    assert (first["image_a"], first["split_a"], first["image_b"], first["split_b"]) == (
        "3.png",
        "train",
        "28.png",
        "val",
    )
    assert first["distance"] == 0
    assert first["correlation"] == 1
    assert found["correlation"].is_monotonic_decreasing


def test_copies_in_the_same_split_are_not_reported() -> None:
    images = make_images()
    images[1], images[29], images[39] = images[0], images[28], images[38]
    assert found_in(images).empty


def test_images_without_structure_are_not_compared() -> None:
    images = make_images()
    images[::5] = 0
    images[1::5] = 255
    assert found_in(images).empty


def test_a_split_may_be_empty() -> None:
    images = make_images()
    assert found_in(images, ["test"] * 40).empty
    images[39] = images[0]
    assert names_of(found_in(images, ["train"] * 20 + ["test"] * 20)) == {("0.png", "39.png")}


def test_very_many_copies_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 25)
    images = make_images()
    images[10:] = images[0]
    assert len(found_in(images)) == 25


@pytest.mark.parametrize("side", [32, 45, 128, 300])
def test_spectra_are_the_cosine_transform_of_block_means(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, side, side), np.uint8)
    edges = np.arange(33) * side // 32
    blocks = np.array(
        [
            [[image[edges[i] : edges[i + 1], edges[j] : edges[j + 1]].mean() for j in range(32)] for i in range(32)]
            for image in images
        ]
    )
    np.testing.assert_allclose(near_duplicates._spectra(images), dctn(blocks, axes=(1, 2), norm="ortho"), atol=0.01)


def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images()
    images[30:] = images[:10]
    found = found_in(images)
    monkeypatch.setattr(near_duplicates, "CHUNK_PIXELS", 3 * 96 * 96)
    monkeypatch.setattr(near_duplicates, "HASHES_PER_STEP", 2)
    monkeypatch.setattr(near_duplicates, "IMAGES_PER_BATCH", 3)
    monkeypatch.setattr(near_duplicates, "PAIRS_PER_STEP", 1)
    pd.testing.assert_frame_equal(found_in(images), found)


def test_candidates_are_those_of_a_slow_search() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(1, 2**63, 300, dtype=np.uint64)
    hashes[150:] = hashes[:150] ^ (np.uint64(1) << random.integers(0, 63, 150).astype(np.uint64))
    split_of = random.choice(np.array(["train", "val", "test"], object), 300)
    order = {"train": 0, "val": 1, "test": 2}
    slow = {
        (a, b)
        for a in range(300)
        for b in range(300)
        if order[split_of[a]] < order[split_of[b]]
        and int(hashes[a] ^ hashes[b]).bit_count() <= near_duplicates.MAX_DISTANCE
    }
    fast = {(int(a), int(b)) for pairs in near_duplicates.candidates(hashes, split_of) for a, b in pairs}
    assert fast == slow
    assert len(slow) > 50


def test_the_features_of_look_alike_images_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images()
    monkeypatch.setattr(near_duplicates, "MAX_DISTANCE", 64)  # so that every pair is a candidate
    monkeypatch.setattr(near_duplicates, "CHUNK_PIXELS", 4 * 96 * 96)
    computed, original = [], near_duplicates._spectra

    def counted(chunk: Images) -> NDArray[np.float32]:
        computed.append(len(chunk))
        return original(chunk)

    monkeypatch.setattr(near_duplicates, "_spectra", counted)
    found_in(images)
    # Once for its hash, then once in each comparison of its split with another.
    assert sum(computed) == 3 * len(images)


def test_the_search_among_images_that_look_alike_stops_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 100)
    hashes, split_of = np.full(40, 5, np.uint64), np.array(SPLIT_OF_EACH, object)
    assert sum(map(len, near_duplicates.candidates(hashes, split_of))) == 100
    assert "warning: the search for near-duplicates stopped after 100 pairs" in capsys.readouterr().err


def test_20_000_hashes_take_seconds() -> None:
    hashes = np.random.default_rng(0).integers(1, 2**63, 20_000, dtype=np.uint64)
    split_of = np.array(["train"] * 14_000 + ["val"] * 3_000 + ["test"] * 3_000, object)
    start = time.perf_counter()
    for _ in near_duplicates.candidates(hashes, split_of):
        pass
    # 0.2 seconds on a quiet machine.
    assert time.perf_counter() - start < 5


@pytest.mark.real_data
def test_real_radiographs_are_distinguished_and_their_copies_found(shared: Path) -> None:
    folder = shared / "nih-mini"
    table = read_table(folder).iloc[::12]
    table = table.drop_duplicates("patient")
    originals = [Image.open(folder / "images" / name) for name in table["image"]]
    images = np.stack([np.asarray(image.resize((128, 128))) for image in originals])
    smaller = np.stack([np.asarray(image.resize((200, 200)).resize((128, 128))) for image in originals[:20]])
    splits = ["train" if row % 2 else "test" for row in range(len(images))]
    assert found_in(images, splits).empty
    found = found_in(np.concatenate([images, smaller]), [*splits, *["val"] * 20])
    assert len(found) == 20
    assert (found["correlation"] > 0.99).all()
