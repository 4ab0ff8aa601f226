"""The array `data/images.npy`, and `data/images.json`, which ties its rows to the images of the sample."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from cxr.core.errors import InputError, first_lines
from cxr.core.files import atomic_write, check_regular_file, open_file

_RUN = "run `python -m stages.resize` or `dvc repro`"
# What numpy raises for damaged headers, found by mutating them.
_HEADER_ERRORS = (ValueError, TypeError, OverflowError, SyntaxError, TokenError, RecursionError, MemoryError)


def description_file(path: Path) -> Path:
    """Return the path of the description of the array at `path`: the same name with the suffix .json."""
    return path.with_suffix(".json")


def write_description(path: Path, names: Sequence[str]) -> None:
    """Write the description of the array at `path`, whose rows are the images `names`.

    Remove the previous description before the array is replaced: if the process ends in between, there is none, and the
    array is refused.
    """
    with atomic_write(description_file(path)) as temporary:
        temporary.write_text(_describe(path, _open_array(path), names), encoding="utf-8")


def open_images(path: Path, names: Sequence[str]) -> NDArray[np.uint8]:
    """Memory-map `data/images.npy`, uint8 [len(names), height, width], read-only.

    The array is refused unless it has the description that `write_description` writes for it and `names`. This detects
    other images, another order, another size, and missing or additional bytes. Of the pixels, only those of about 16
    evenly spaced rows are read, since the array may have 10 GB: a change in other rows is not detected here, but by
    `dvc status`, and by the stage train, which starts again if any byte has changed.

    Args:
        path: the array.
        names: the images of the sample, in its order.

    Raises:
        InputError: if a file is missing or damaged, or the array belongs to another sample.
    """
    images = _open_array(path)
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(names):
        raise InputError(f"{path} holds {images.dtype} {images.shape}, not {len(names):,} gray images; {_RUN}")
    expected = _describe(path, images, names).encode()
    try:
        with open_file(description_file(path)) as file:
            is_described = file.read(len(expected) + 1) == expected
    except FileNotFoundError:
        raise InputError(f"there is no {description_file(path)}, which belongs to {path}; {_RUN}") from None
    if not is_described:
        raise InputError(
            f"{path} and {description_file(path)} do not belong to the {len(names):,} images of the sample: they are "
            f"of another sample, in another order, or damaged; {_RUN}"
        )
    return images


def _open_array(path: Path) -> NDArray[np.uint8]:
    try:
        check_regular_file(path)
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {_RUN}") from None
    except _HEADER_ERRORS as error:
        raise InputError(f"{path} is not an array of images: {first_lines(error)}; {_RUN}") from None


def _describe(path: Path, images: NDArray[np.uint8], names: Sequence[str]) -> str:
    """Return the description of an array and its images as JSON text."""
    evenly_spaced = images[:: max(1, len(images) // 16)]
    description = {
        "images": len(names),
        "image_column_sha256": sha256("\n".join(names).encode()).hexdigest(),
        "shape": images.shape,
        "file_bytes": path.stat().st_size,
        "pixels_sha256": sha256(evenly_spaced.tobytes()).hexdigest(),
    }
    return json.dumps(description, indent=2) + "\n"
