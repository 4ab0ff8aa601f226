"""NIH's list of boxes: where radiologists saw a finding, in some of the test images."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cxr.core.errors import InputError
from cxr.core.labels import FINDINGS

BOX_FILE = "BBox_List_2017.csv"
NIH_SIDE = 1024  # pixels: the frame of the boxes, whatever the size of the image files
COLUMNS = ("image", "class", "x", "y", "width", "height")
_NIH_WORDS = {"Infiltrate": "Infiltration"}


def read_boxes(raw_dir: Path) -> pd.DataFrame:
    """Read `BBox_List_2017.csv` in `raw_dir`, as NIH and Kaggle publish it and tools.phantom writes it.

    Returns:
        A row a box, in the file's order: image and class (str), left edge x, upper edge y, width and height (float,
        shares of the image's side). Empty where there is no such file: boxes are not needed.

    Raises:
        InputError: naming the line that is no box.
    """
    path = raw_dir / BOX_FILE
    if not path.is_file():
        return pd.DataFrame([], columns=list(COLUMNS))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return pd.DataFrame(_rows(path, csv.reader(file)), columns=list(COLUMNS))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None


def boxes_of_images(images: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes that lie in some images, with what localisation needs to know of those.

    Args:
        images: with the columns image and patient, as the test images of the sample.
        boxes: as `read_boxes` returns them.

    Returns:
        `boxes` with the columns place (of the image among `images`) and patient, sorted by place.
    """
    about = images[["image", "patient"]].assign(place=range(len(images)))
    return boxes.merge(about, on="image").sort_values("place", kind="stable", ignore_index=True)


def _rows(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[str | float, ...]]:
    # The header's brackets hold commas, so its columns are more than those of a row: it says nothing but its start.
    header = next(reader, [])
    if header[:2] != ["Image Index", "Finding Label"]:
        raise InputError(
            f"{path}: the first line must start with Image Index,Finding Label; is it NIH's list of boxes?"
        )
    for line, fields in enumerate(reader, start=2):
        try:
            if any(fields):
                yield _box(fields)
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}; mend or remove the line") from None


def _box(fields: list[str]) -> tuple[str | float, ...]:
    """One line; ValueError says what is wrong with it."""
    # Kaggle's rows end in three empty fields.
    if len(fields) < len(COLUMNS) or any(fields[len(COLUMNS) :]):
        raise ValueError(f"{len(fields)} fields, not image, finding, x, y, width, height")
    image, word, *numbers = fields[: len(COLUMNS)]
    name = _NIH_WORDS.get(word, word)
    if name not in FINDINGS:
        raise ValueError(f"{word!r} is none of the findings {', '.join(FINDINGS)}")
    x, y, width, height = (float(number) for number in numbers)
    inside = x >= 0 and y >= 0 and x + width <= NIH_SIDE and y + height <= NIH_SIDE
    if not (inside and width > 0 and height > 0 and math.isfinite(x + y + width + height)):
        raise ValueError(f"the box {', '.join(numbers)} is not inside of {NIH_SIDE} × {NIH_SIDE} pixels")
    return image, name, x / NIH_SIDE, y / NIH_SIDE, width / NIH_SIDE, height / NIH_SIDE
