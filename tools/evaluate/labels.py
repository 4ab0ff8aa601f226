"""Labels to measure on: a folder in the layout of NIH or CheXpert, or a CSV table of labels."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, format_names
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import check_images, check_values, is_synthetic, read_strings
from cxr.datasets.params import CheXpert
from cxr.datasets.registry import dataset_name, read_lists, read_table
from tools.evaluate.names import match_columns

# As in params.yaml: uncertain labels of CheXpert are unknown, empty ones negative.
LABEL_POLICY = CheXpert(uncertain="unknown", unmentioned="negative", lateral=False)
_FIELDS = ("patient", "age", "sex", "view")
_SEX = {"m": "M", "male": "M", "f": "F", "female": "F"}
_LABEL_VALUES = {"1": 1, "0": 0, "": UNKNOWN}


class LabelSet(NamedTuple):
    """Images with labels.

    Attributes:
        table: image, patient, age, sex, view, then the 15 classes (uint8: 0, 1 or `UNKNOWN`).
        source: name of the folder or file that they are from.
        name: of the data set.
        folder: of the image files.
        synthetic: whether the images are synthetic.
        official: the official split of NIH: image and list; empty for other data.
        notes: what is missing or assumed.
    """

    table: pd.DataFrame
    source: str
    name: str
    folder: Path
    synthetic: bool
    official: pd.DataFrame
    notes: tuple[str, ...]


def read_labels(path: Path) -> LabelSet:
    """Read the labels in a folder of NIH or CheXpert, or in a CSV table.

    Raises:
        InputError: if there are none, or they are invalid.
    """
    return _read_folder(path) if path.is_dir() else _read_csv(path)


def lacking_classes(labels: LabelSet) -> list[str]:
    """Return the classes without a label in any image."""
    return [name for name in CLASSES if (labels.table[name] == UNKNOWN).all()]


def _read_folder(path: Path) -> LabelSet:
    table, name = read_table(path, LABEL_POLICY), dataset_name(path)
    return LabelSet(table, path.resolve().name, name, path, is_synthetic(path), read_lists(path), ())


def _read_csv(path: Path) -> LabelSet:
    if path.exists() and "Finding Labels" in path.read_bytes()[:1000].decode("utf-8", "replace"):
        raise InputError(f"{path} is NIH's table; give its folder, {path.parent}")
    columns = match_columns(path)
    raw = read_strings(path, columns)
    check_images(raw["image"], path)
    labels = {name: _parse_labels(raw, name, path) for name in CLASSES}
    given = {name: raw[name] if name in raw else pd.Series("", raw.index) for name in _FIELDS}
    patients, notes = _parse_patients(given["patient"], path, is_given="patient" in raw)
    metadata = {
        "image": raw["image"],
        "patient": patients,
        "age": pd.to_numeric(given["age"], errors="coerce").round().astype("Int64"),
        "sex": given["sex"].str.lower().map(_SEX).fillna(""),
        "view": given["view"],
    }
    table = pd.DataFrame({**metadata, **labels})
    empty = pd.DataFrame({"image": [], "list": []}, dtype=str)
    return LabelSet(table, path.name, path.name, path.parent, is_synthetic(path.parent), empty, notes)


def _parse_labels(raw: pd.DataFrame, name: str, path: Path) -> pd.Series:
    if name not in raw:
        return pd.Series(np.uint8(UNKNOWN), raw.index)
    values = raw[name].str.strip().str.removesuffix(".0")
    check_values(raw.assign(**{name: values}), {name: "[01]?"}, f"{path} (labels are 0, 1 or, if unknown, empty)")
    return values.map(_LABEL_VALUES).astype(np.uint8)


def _parse_patients(values: pd.Series, path: Path, *, is_given: bool) -> tuple[pd.Series, tuple[str, ...]]:
    """Return an integer for each image's patient: numbers as they are, other names numbered; and a note if missing."""
    if not is_given:
        note = (
            f"{path.name} has no column of patients: the intervals assume that every image is of another patient, and "
            "are too narrow if some are of the same."
        )
        return pd.Series(np.arange(len(values)), values.index), (note,)
    if (values == "").any():
        raise InputError(f"{path}: {(values == '').sum():,} images have no patient; fill in or remove the column")
    if values.str.fullmatch("[0-9]{1,18}").all():
        return values.astype(np.int64), ()
    return pd.Series(pd.factorize(values)[0], values.index).astype(np.int64), ()


def find_images(names: pd.Series, labels: LabelSet) -> pd.Series:
    """Return the row of each image name in the labels, or -1: by its whole name, else by its last part.

    Tables of predictions often have paths such as `images/00000001_000.png` where the labels have file names.
    """
    index = pd.Index(labels.table["image"])
    rows = index.get_indexer(pd.Index(names))
    last = pd.Index([re.split(r"[/\\]", name)[-1] for name in names])
    return pd.Series(np.where(rows >= 0, rows, index.get_indexer(last)), names.index)


def describe_lacking(lacking: list[str], where: str) -> list[str]:
    """Return the note on the classes that `where` lacks; empty if it lacks none."""
    return [f"Left out, since {where} has no values for them: {format_names(lacking, 15)}."] if lacking else []
