"""NIH ChestX-ray14 (Wang et al., CVPR 2017): its table and its official split."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, format_names, warn
from cxr.core.files import read_utf8
from cxr.core.labels import CLASSES, NO_FINDING
from cxr.core.tables import check_images, check_values, read_strings, reject_duplicates

MAX_AGE = 120  # years
_COLUMNS = {
    "Image Index": "image",
    "Finding Labels": "labels",
    "Patient ID": "patient",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view",
}
_YEARS_OF_UNIT = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


def read_table(raw_dir: Path) -> pd.DataFrame:
    """Read the table in `raw_dir`, in any of its three published versions.

    Returns:
        One row for each image, sorted by image name: image (str), patient (int), age (years, missing if above 120), sex
        and view (str), then the 15 classes (uint8, 0 or 1).

    Raises:
        InputError: if there is no table or more than one, a column is missing, there are no rows, an image is listed
            more than once, or a name or value is invalid.
    """
    path = _table_path(raw_dir)
    # NIH renamed Patient Gender to Patient Sex in 2020; copies and older versions have the old name.
    table = read_strings(path, _COLUMNS, aliases={"Patient Sex": "Patient Gender"})
    check_images(table["image"], path)
    # `images/x.png` would be another name of `x.png`.
    check_values(table, {"image": "[^/]+"}, path)
    labels = _parse_labels(table, path)
    table["patient"] = _parse_patients(table, path)
    table["age"] = _parse_ages(table, path)
    _check_sex_and_view(table, path)
    table = pd.concat([table.drop(columns="labels"), labels], axis=1)
    return table.sort_values("image", ignore_index=True)


def read_patients(raw_dir: Path) -> pd.DataFrame:
    """Read the columns image and patient of the table, as strings; no rows if there is no table.

    Raises:
        InputError: if there is more than one table, or it lacks one of the columns.
    """
    if not any(raw_dir.glob("Data_Entry_2017*.csv")):
        return pd.DataFrame({"image": [], "patient": []}, dtype=str)
    return read_strings(_table_path(raw_dir), {"Image Index": "image", "Patient ID": "patient"})


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """Read the official split, `train_val_list.txt` and `test_list.txt`: columns image and list (train_val or test).

    Returns an empty table if `raw_dir` has neither file.

    Raises:
        InputError: if only one of the files exists, a file is not text in UTF-8, or an image is listed more than once.
    """
    paths = {name: raw_dir / f"{name}_list.txt" for name in ("train_val", "test")}
    # lexists: a pipe or a dangling link of this name is an error, not a missing list.
    existing = [path for path in paths.values() if os.path.lexists(path)]
    if not existing:
        return pd.DataFrame({"image": [], "list": []}, dtype=str)
    if len(existing) == 1:
        raise InputError(f"{raw_dir} has {existing[0].name} but not the other official list; add it or remove this one")
    names = {name: read_utf8(path).split() for name, path in paths.items()}
    rows = [(image, name) for name, images in names.items() for image in images]
    lists = pd.DataFrame(rows, columns=["image", "list"], dtype=str)
    reject_duplicates(lists["image"], raw_dir / "train_val_list.txt and test_list.txt")
    return lists


def _table_path(raw_dir: Path) -> Path:
    found = sorted(raw_dir.glob("Data_Entry_2017*.csv"))
    if not found:
        raise InputError(
            f"{raw_dir} has neither NIH's table Data_Entry_2017*.csv nor CheXpert's train.csv; set raw_dir to the "
            "folder that contains the table"
        )
    if len(found) > 1:
        raise InputError(f"{raw_dir} has several tables, {format_names([path.name for path in found])}; keep only one")
    return found[0]


def _parse_labels(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    # The 112,120 images have 836 combinations of labels; each combination is parsed once.
    codes, combinations = pd.factorize(table["labels"])
    matrix = np.zeros((len(combinations), len(CLASSES)), np.uint8)
    for row, combination in enumerate(combinations):
        labels = combination.split("|")
        unknown = [label for label in labels if label not in CLASSES]
        if unknown or (NO_FINDING in labels and len(labels) > 1):
            image = table["image"][codes == row].iloc[0]
            problem = f"unknown label {unknown[0]!r}" if unknown else f"{NO_FINDING} combined with other labels"
            raise InputError(f"{path}: {problem} of image {image}; the classes are {', '.join(CLASSES)}")
        matrix[row, [CLASSES.index(label) for label in labels]] = 1
    return pd.DataFrame(matrix[codes], columns=list(CLASSES), index=table.index)


def _parse_patients(table: pd.DataFrame, path: Path) -> pd.Series:
    invalid = ~table["patient"].str.fullmatch("[0-9]{1,18}")
    if invalid.any():
        row = table[invalid].iloc[0]
        raise InputError(f"{path}: Patient ID {row['patient']!r} of image {row['image']} is not an integer")
    return table["patient"].astype(np.int64)


def _parse_ages(table: pd.DataFrame, path: Path) -> pd.Series:
    """Return ages in whole years, parsed from `58`, `058Y`, `006M` or `012D`."""
    parts = table["age"].str.extract(re.compile("^([0-9]{1,6})([YMD]?)$"))
    if parts[0].isna().any():
        row = table[parts[0].isna()].iloc[0]
        raise InputError(f"{path}: invalid Patient Age {row['age']!r} of image {row['image']}")
    years = np.floor(parts[0].astype(float) * parts[1].map(_YEARS_OF_UNIT)).astype("Int64")
    impossible = years > MAX_AGE
    if impossible.any():
        warn(f"{path}: {impossible.sum()} ages above {MAX_AGE} years are treated as missing")
    return years.mask(impossible)


def _check_sex_and_view(table: pd.DataFrame, path: Path) -> None:
    invalid = ~table["sex"].isin(["M", "F"]) | ~table["view"].isin(["PA", "AP"])
    if invalid.any():
        row = table[invalid].iloc[0]
        raise InputError(
            f"{path}: image {row['image']} has sex {row['sex']!r} and view position {row['view']!r}, expected M or F "
            "and PA or AP; the row may be truncated"
        )
