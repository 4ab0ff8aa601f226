"""Decode the images, resize them, and store them in one array.

Reads: `data/sample.csv`, the images in `raw_dir`.
Writes: `data/images.npy` (uint8 [images, image_size, image_size], rows in the order of `data/sample.csv`) and
    `data/images.json`, by which the stages that read the array check that it belongs to `data/sample.csv`.
Run: `python -m stages.resize`
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.core.errors import InputError, format_names, run_stage
from cxr.core.files import atomic_write, remove
from cxr.core.image_array import description_file, write_description
from cxr.core.params import read_params
from cxr.core.paths import IMAGES, SAMPLE
from cxr.core.prefetch import prefetch_map
from cxr.core.tables import read_sample
from cxr.images.decode import decode_and_resize, image_errors
from cxr.images.params import ResizeParams
from cxr.images.raw_images import RawImages

ImageOrError = NDArray[np.uint8] | ValueError


def main() -> None:
    """Find the images of the sample and write the array."""
    params = read_params(ResizeParams)
    names = list(read_sample(SAMPLE)["image"])
    with RawImages(params.raw_dir) as images:
        missing = [name for name in names if name not in images]
        if missing:
            raise InputError(
                f"{len(missing):,} of the {len(names):,} sampled images are missing in {params.raw_dir}: "
                f"{format_names(missing)}; complete the download, or run `dvc repro` to sample again"
            )
        write_images(names, partial(_decode, images, params.image_size), params.image_size, IMAGES)
    print(f"{IMAGES}: {len(names):,} images of {params.image_size} x {params.image_size} pixels")


def write_images(names: list[str], decode: Callable[[str], ImageOrError], size: int, path: Path) -> None:
    """Decode the images on all cores; write them as a .npy array, uint8 [len(names), size, size], and its description.

    Only a few images are in memory at a time.

    Raises:
        InputError: if the disk has too little free space, or images cannot be decoded; the message names all of them.
            No file is written.
    """
    _check_disk_space(len(names) * size * size, path)
    failures = []
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), size, size)}
        np.lib.format.write_array_header_1_0(file, header)
        cores = os.cpu_count() or 1
        rows = prefetch_map(decode, names, cores, 16 * cores)
        # disable=None: show the bar only if standard error is a terminal.
        for name, row in zip(names, tqdm(rows, "resize", len(names), disable=None, unit=" images"), strict=True):
            if isinstance(row, ValueError):
                failures.append(f"  {name}: {row}")
            elif not failures:
                file.write(row.tobytes())
        if failures:
            raise InputError(
                f"{len(failures):,} of {len(names):,} images cannot be read:\n" + "\n".join(failures) + "\n"
                "Download them again, or add them to sample.exclude"
            )
        file.flush()
        # From here until the new description is written, a killed run leaves an array that is refused.
        remove(description_file(path))
    write_description(path, names)


def _decode(images: RawImages, size: int, name: str) -> ImageOrError:
    try:
        with image_errors():
            return decode_and_resize(images.read(name), size)
    except ValueError as error:
        return error


def _check_disk_space(needed: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InputError(f"{path} needs {needed / 1e9:.1f} GB but the disk has only {free / 1e9:.1f} GB free")


if __name__ == "__main__":
    run_stage(main, __doc__)
