"""A `raw_dir` of any size in the layout of NIH ChestX-ray14, with synthetic images that differ like radiographs.

Drawing a radiograph takes 10 to 20 ms, too long for 112,120 images, and synthetic radiographs look alike: 1.6 % of the
pairs of the demo are candidates of the search for near-duplicates, compared with 0.003 % of real ones. Therefore
`DRAWINGS` radiographs are drawn, and every image is one of them with a smooth random field of its own, whose amplitude
gives about as many candidates as real radiographs have.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr.core.files import write_csv
from cxr.datasets.boxes import BOX_FILE
from tools.phantom.dataset import phantom_exams, test_patients
from tools.phantom.exam import Exam
from tools.phantom.nih import image_name, image_table, write_lines
from tools.phantom.radiograph import render

TABLE = "Data_Entry_2017_v2020.csv"
LISTS = ("train_val_list.txt", "test_list.txt")
DRAWINGS = 1000
FREQUENCIES = 12  # of the random field, half waves per side
FIELD = 20.0  # standard deviation of the field, gray levels
NOISE = 2.0  # standard deviation of the noise of each pixel, gray levels
ARCHIVES = 12  # as NIH publishes
_SEED = 15
_IMAGES_PER_TASK = 500

Pixels = NDArray[np.uint8]  # [size, size]


def write_tables(folder: Path, images: int, metadata: Path | None) -> list[str]:
    """Write the table, the two lists and the boxes of `images` images; return the names of the images.

    Args:
        folder: where to write, an existing folder.
        images: number of images; at most those of the table in `metadata`.
        metadata: a folder with NIH's table, lists and boxes, of which whole patients are chosen at random (and a part
            of the last one's images), or None for synthetic patients without boxes.
    """
    if metadata is None:
        return _write_synthetic(folder, images)
    table = _choose_patients(pd.read_csv(metadata / TABLE, dtype=str), images)
    write_csv(table, folder / TABLE)
    names = set(table["Image Index"])
    for name in LISTS:
        write_lines(_lines_of(metadata / name, names), folder / name)
    header = (metadata / BOX_FILE).read_text(encoding="utf-8").splitlines()[0]
    write_lines([header, *_lines_of(metadata / BOX_FILE, names)], folder / BOX_FILE)
    return list(table["Image Index"])


def write_images(names: list[str], size: int, folder: Path) -> None:
    """Write a PNG of `size` × `size` pixels for each name, on all cores."""
    folder.mkdir()
    with ProcessPoolExecutor() as pool:
        exams = phantom_exams(_SEED, min(DRAWINGS, len(names)))
        drawings = list(pool.map(_draw, exams, [size] * len(exams), chunksize=20))
        starts = range(0, len(names), _IMAGES_PER_TASK)
        parts = [names[start : start + _IMAGES_PER_TASK] for start in starts]
        for task in [pool.submit(_write_varied, *part, drawings, folder) for part in zip(parts, starts, strict=True)]:
            task.result()


def write_archives(images: Path, folder: Path) -> None:
    """Write the images to `ARCHIVES` zip archives in `folder`."""
    paths = sorted(images.iterdir())
    for number, part in enumerate(np.array_split(np.arange(len(paths)), ARCHIVES), start=1):
        with ZipFile(folder / f"images_{number:03}.zip", "w") as archive:
            for row in part:
                archive.write(paths[row], f"images/{paths[row].name}")


def copy_tables(source: Path, target: Path) -> None:
    """Copy the files beside the images."""
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def vary(drawings: list[Pixels], number: int, random: np.random.Generator) -> Pixels:
    """Return drawing `number`, counted from the first again after the last, with a random field and noise."""
    drawing = drawings[number % len(drawings)]
    waves = _waves(len(drawing))
    field = waves @ random.normal(0, FIELD / FREQUENCIES, (FREQUENCIES, FREQUENCIES)) @ waves.T
    noise = random.normal(0, NOISE, drawing.shape)
    return (drawing + field + noise).clip(0, 255).astype(np.uint8)


def _write_synthetic(folder: Path, images: int) -> list[str]:
    exams = phantom_exams(_SEED, images)
    test = test_patients(exams, _SEED)
    write_csv(image_table(exams), folder / TABLE)
    for name, in_test in zip(LISTS, (False, True), strict=True):
        write_lines((image_name(exam) for exam in exams if (exam.patient in test) == in_test), folder / name)
    return [image_name(exam) for exam in exams]


def _choose_patients(table: pd.DataFrame, images: int) -> pd.DataFrame:
    patients = table["Patient ID"].drop_duplicates()
    order = pd.Series(np.random.default_rng(_SEED).permutation(len(patients)), index=patients)
    shuffled = table["Patient ID"].map(order).sort_values(kind="stable")
    return table.loc[shuffled.index[:images]].sort_index()


def _lines_of(path: Path, names: set[str]) -> Iterator[str]:
    """Yield the lines that begin with one of `names`."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line.partition(",")[0] in names)


def _draw(exam: Exam, size: int) -> Pixels:
    return render(exam, size)[0]


def _write_varied(names: list[str], start: int, drawings: list[Pixels], folder: Path) -> None:
    random = np.random.default_rng([_SEED, start])
    for number, name in enumerate(names, start):
        Image.fromarray(vary(drawings, number, random)).save(folder / name)


def _waves(size: int) -> NDArray[np.float64]:
    """Return cosines of 0 to `FREQUENCIES` - 1 half waves, with a root mean square of 1, [size, FREQUENCIES]."""
    position, frequency = np.mgrid[:size, :FREQUENCIES]
    return np.cos(np.pi * frequency * (position + 0.5) / size) * np.where(frequency, 2**0.5, 1)
