"""Predictions of anybody's network: a CSV table with a column of image names and one column for each class."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.errors import InputError, format_names
from cxr.core.labels import CLASSES
from cxr.core.tables import read_strings, reject_duplicates
from cxr.evaluation.metrics import Scores
from tools.evaluate.labels import LabelSet, describe_lacking, find_images, lacking_classes
from tools.evaluate.names import match_columns


class MatchedPredictions(NamedTuple):
    """Predictions of the images that have labels.

    Attributes:
        table: rows of the labels' table, in its order.
        probabilities: float64 [images, 15]; nan for classes that the predictions lack.
        notes: what was left out.
    """

    table: pd.DataFrame
    probabilities: NDArray[np.float64]
    notes: tuple[str, ...]


def read_predictions(path: Path, *, is_logits: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a table of predictions; the order of its rows and columns does not matter.

    If it has a column split, as `data/predictions.csv`, only the rows of test are read.

    Args:
        path: the CSV file.
        is_logits: whether the values are logits, which a sigmoid turns into probabilities.

    Returns:
        A table with the columns image and the 15 classes (float64, nan for classes that the file lacks), and notes.

    Raises:
        InputError: if the file is not such a table, an image is listed twice, or a value is not a probability.
    """
    columns = match_columns(path)
    raw = read_strings(path, columns)
    notes = (
        [f"Columns read as classes: {', '.join(f'{one} as {two}' for one, two in renamed.items())}."]
        if (renamed := {one: two for one, two in columns.items() if two in CLASSES and one != two})
        else []
    )
    if "split" in raw:
        notes.append(f"Of {path.name}, only the images of the split test are used.")
        raw = raw[raw["split"] == "test"]
    reject_duplicates(raw["image"], path)
    values = {name: _parse(raw, name, path) for name in CLASSES}
    table = pd.DataFrame({"image": raw["image"], **values})
    _check_range(table, path, is_logits=is_logits)
    lacking = [name for name in CLASSES if table[name].isna().all()]
    if is_logits:
        table[list(CLASSES)] = 1 / (1 + np.exp(-table[list(CLASSES)].clip(-700, 700)))
    return table, (*notes, *describe_lacking(lacking, path.name))


def match_predictions(predictions: pd.DataFrame, labels: LabelSet, source: Path) -> MatchedPredictions:
    """Join predictions and labels by the name of the image, in the order of the labels.

    Raises:
        InputError: if no image is in both, or two rows of predictions are the same image.
    """
    rows = find_images(predictions["image"], labels)
    known = rows >= 0
    if not known.any():
        raise InputError(
            f"{source}: none of its {len(rows):,} images, such as {predictions['image'].iloc[0]}, is in the labels of "
            f"{labels.name}, such as {labels.table['image'].iloc[0]}; give the labels of the same images"
        )
    if rows[known].duplicated().any():
        repeated = list(predictions["image"][known][rows[known].duplicated(keep=False)])
        raise InputError(f"{source}: {format_names(repeated)} are the same image of the labels; keep one of them")
    found = predictions[known].assign(row=rows[known]).sort_values("row")
    table = labels.table.iloc[found["row"]].reset_index(drop=True)
    notes = _describe_unmatched(predictions["image"][~known], len(labels.table) - len(table), labels)
    lacking = [name for name in lacking_classes(labels) if not found[name].isna().all()]
    notes += describe_lacking(lacking, f"the table of labels ({labels.name})")
    return MatchedPredictions(table, found[list(CLASSES)].to_numpy(np.float64), tuple(notes))


def _describe_unmatched(unknown: pd.Series, unpredicted: int, labels: LabelSet) -> list[str]:
    notes = []
    if len(unknown):
        notes.append(
            f"{len(unknown):,} images have predictions but no labels, and are left out: {format_names(list(unknown))}."
        )
    if unpredicted:
        notes.append(f"{unpredicted:,} of the {len(labels.table):,} labelled images have no predictions.")
    return notes


def _parse(raw: pd.DataFrame, name: str, path: Path) -> Scores:
    """Return the numbers of a class; nan in all rows if the column is missing or empty."""
    if name not in raw or (raw[name].str.strip() == "").all():
        return np.full(len(raw), np.nan)
    try:
        values = raw[name].to_numpy(object).astype(np.float64)
    except ValueError:
        values = pd.to_numeric(raw[name], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        row = raw[~np.isfinite(values)].iloc[0]
        raise InputError(
            f"{path}: {row[name]!r} is no probability of {name} for image {row['image']}; a class needs a number for "
            "every image, or none for all"
        )
    return values


def _check_range(table: pd.DataFrame, path: Path, *, is_logits: bool) -> None:
    values = table[list(CLASSES)]
    outside = ((values < 0) | (values > 1)).any(axis=1)
    if outside.any() and not is_logits:
        row = table[outside].iloc[0]
        name = next(name for name in CLASSES if row[name] < 0 or row[name] > 1)
        raise InputError(
            f"{path}: {outside.sum():,} images have values outside 0 to 1, such as {row[name]:g} for {name} of "
            f"{row['image']}; if these are logits, add --logits"
        )
