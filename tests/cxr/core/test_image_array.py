import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.image_array import description_file, open_images, write_description

NAMES = [f"{number}.png" for number in range(100)]
IMAGES = np.random.default_rng(0).integers(0, 256, (100, 6, 6), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An array of 100 images with its description."""
    np.save(tmp_path / "images.npy", IMAGES)
    write_description(tmp_path / "images.npy", NAMES)
    return tmp_path / "images.npy"


def test_the_array_is_mapped_read_only(path: Path) -> None:
    images = open_images(path, NAMES)
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert np.array_equal(images, IMAGES)


def test_the_description_depends_on_names_and_pixels_only(path: Path) -> None:
    first = description_file(path).read_bytes()
    os.utime(path, (1, 1))
    write_description(path, NAMES)
    assert description_file(path).read_bytes() == first
    np.save(path, IMAGES[::-1])
    write_description(path, NAMES)
    assert description_file(path).read_bytes() != first


@pytest.mark.parametrize(
    "names", [NAMES[::-1], [*NAMES[1:], NAMES[0]], [*NAMES[:-1], "other.png"]], ids=["reversed", "rotated", "one other"]
)
def test_another_sample_is_refused(path: Path, names: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"do not belong to the 100 images .* another order.*stages\.resize.*dvc repro"
    ):
        open_images(path, names)


@pytest.mark.parametrize("count", [99, 101])
def test_another_number_of_images_is_refused(path: Path, count: int) -> None:
    with pytest.raises(InputError, match=rf"not {count} gray images; run `python -m stages\.resize`"):
        open_images(path, [str(number) for number in range(count)])


def append(content: bytes) -> bytes:
    return content + b"\0"


def truncate(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize(
    "change", [append, truncate, lambda _: b"", lambda _: b"no array", lambda _: b"PK\x03\x04" * 9]
)
def test_additional_missing_and_other_bytes_are_refused(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=r"images\.npy .*run `python -m stages\.resize` or `dvc repro`"):
        open_images(path, NAMES)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES[::-1],
        np.roll(IMAGES, 1, axis=0),
        IMAGES.astype(np.float32),
        IMAGES[..., None],
        IMAGES.reshape(100, 4, 9),
        IMAGES.astype(object),
        np.random.default_rng(1).integers(0, 256, IMAGES.shape, np.uint8),
    ],
    ids=["reversed", "rotated", "float", "four axes", "another shape", "pickled", "other pixels"],
)
def test_another_array_is_refused(path: Path, images: NDArray[np.generic]) -> None:
    np.save(path, images)
    with pytest.raises(InputError, match=r"images\.npy .*run `python -m stages\.resize` or `dvc repro`"):
        open_images(path, NAMES)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"9" * 5000])
def test_a_damaged_description_is_refused(path: Path, content: bytes) -> None:
    description_file(path).write_bytes(content)
    with pytest.raises(InputError, match=r"images\.json do not belong to the 100 images"):
        open_images(path, NAMES)


def test_missing_files_are_reported(path: Path) -> None:
    description_file(path).unlink()
    with pytest.raises(InputError, match=r"there is no .*images\.json, which belongs to .*images\.npy; run"):
        open_images(path, NAMES)
    path.unlink()
    with pytest.raises(InputError, match=r"there is no .*images\.npy; run"):
        open_images(path, NAMES)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["images.npy", "images.json"])
def test_a_pipe_or_device_is_refused(path: Path, name: str) -> None:
    path.with_name(name).unlink()
    os.mkfifo(path.with_name(name))
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        open_images(path, NAMES)
    path.with_name(name).unlink()
    path.with_name(name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        open_images(path, NAMES)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 127), st.binary(min_size=1, max_size=30), st.booleans())
def test_a_damaged_header_is_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes, insert: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.npy"
    np.save(path, IMAGES)
    write_description(path, NAMES)
    content = path.read_bytes()
    path.write_bytes(content[:at] + new + content[at + (0 if insert else len(new)) :])
    with suppress(InputError):
        assert np.array_equal(open_images(path, NAMES), IMAGES)
