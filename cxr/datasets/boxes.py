"""NIH's bounding boxes: the location of findings in some of the test images, marked by radiologists."""

import csv
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cxr.core.errors import InputError
from cxr.core.files import read_utf8
from cxr.core.labels import FINDINGS

BOX_FILE = "BBox_List_2017.csv"
NIH_SIDE = 1024  # pixels; coordinates refer to 1024 x 1024 pixels, whatever the size of the image files
COLUMNS = ("image", "class", "x", "y", "width", "height")
_HEADER_START = ["Image Index", "Finding Label"]
_NIH_LABELS = {"Infiltrate": "Infiltration"}


def read_boxes(raw_dir: Path) -> pd.DataFrame:
    """Read `BBox_List_2017.csv` in `raw_dir`, as published by NIH and Kaggle.

    Returns:
        One row for each box, in the order of the file: image and class (str), left edge x, upper edge y, width and
        height (float, fractions of the image's side). Empty if there is no such file.

    Raises:
        InputError: if the file is not text in UTF-8, or a line is invalid; the message gives its number.
    """
    path = raw_dir / BOX_FILE
    if not os.path.lexists(path):
        return pd.DataFrame([], columns=list(COLUMNS))
    try:
        return pd.DataFrame(_parse(path, csv.reader(io.StringIO(read_utf8(path), newline=""))), columns=list(COLUMNS))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None


def boxes_of_images(images: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Return the boxes of some images, each with the row and patient of its image.

    Args:
        images: a table with the columns image and patient.
        boxes: the result of `read_boxes`.

    Returns:
        `boxes` with the additional columns row (of the image in `images`) and patient, sorted by row.
    """
    numbered = images[["image", "patient"]].assign(row=range(len(images)))
    return boxes.merge(numbered, on="image").sort_values("row", kind="stable", ignore_index=True)


def _parse(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[str | float, ...]]:
    # The header's last name, "Bbox [x,y,w,h]", contains commas, so only the first two names are checked.
    if next(reader, [])[:2] != _HEADER_START:
        raise InputError(f"{path}: the first line must start with {','.join(_HEADER_START)}; use NIH's file")
    for line, fields in enumerate(reader, start=2):
        try:
            if any(fields):
                yield _parse_box(fields)
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}; fix or remove the line") from None


def _parse_box(fields: list[str]) -> tuple[str | float, ...]:
    """Return the values of one line, in the order of `COLUMNS`.

    Raises:
        ValueError: if the line is invalid.
    """
    # Kaggle's rows end in three empty fields.
    if len(fields) < len(COLUMNS) or any(fields[len(COLUMNS) :]):
        raise ValueError(f"{len(fields)} fields, expected image, finding, x, y, width and height")
    image, label, *numbers = fields[: len(COLUMNS)]
    finding = _NIH_LABELS.get(label, label)
    if finding not in FINDINGS:
        raise ValueError(f"unknown finding {label!r}; the findings are {', '.join(FINDINGS)}")
    x, y, width, height = (float(number) for number in numbers)
    is_inside = x >= 0 and y >= 0 and x + width <= NIH_SIDE and y + height <= NIH_SIDE
    if not (is_inside and width > 0 and height > 0 and math.isfinite(x + y + width + height)):
        raise ValueError(f"the box {', '.join(numbers)} is not inside {NIH_SIDE} x {NIH_SIDE} pixels")
    return image, finding, x / NIH_SIDE, y / NIH_SIDE, width / NIH_SIDE, height / NIH_SIDE
