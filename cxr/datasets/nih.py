"""NIH ChestX-ray14: its table, and its two official lists."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES, NO_FINDING
from cxr.core.tables import name_some, read_strings, reject_repeated

OLDEST = 120
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
    """Read any of the three published versions of NIH's table in `raw_dir`.

    Returns:
        A row an image, sorted by image name: image (str), patient (int), age (years, missing where it is above 120),
        sex and view (str), then the 15 classes (uint8, 0 or 1).

    Raises:
        InputError: where there is no table or more than one, or it lacks a column, has no rows, an unknown label, an
            image twice, or a patient or age that is no number.
    """
    path = _table_path(raw_dir)
    # NIH's own file has said Sex since 2020, copies of it and the older versions say Gender.
    table = read_strings(path, _COLUMNS, also={"Patient Sex": "Patient Gender"})
    reject_repeated(table["image"], path)
    labels = _label_columns(table, path)
    table["patient"] = _patients(table, path)
    table["age"] = _ages(table, path)
    odd = table[~table["sex"].isin(["M", "F"]) | ~table["view"].isin(["PA", "AP"])]
    if len(odd):
        row = odd.iloc[0]
        raise InputError(
            f"{path}: image {row['image']} has sex {row['sex']!r} and view {row['view']!r}; is its row cut?"
        )
    table = pd.concat([table.drop(columns="labels"), labels], axis=1)
    return table.sort_values("image", ignore_index=True)


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """Read NIH's `train_val_list.txt` and `test_list.txt`; columns image and list (train_val or test).

    Returns an empty table where `raw_dir` has neither.

    Raises:
        InputError: where only one of the two is there, or an image is listed twice.
    """
    paths = {name: raw_dir / f"{name}_list.txt" for name in ("train_val", "test")}
    there = [path for path in paths.values() if path.is_file()]
    if not there:
        return pd.DataFrame({"image": [], "list": []}, dtype=str)
    if len(there) == 1:
        raise InputError(
            f"{raw_dir} has {there[0].name} but not the other of NIH's two lists; add it, or remove this one"
        )
    names = {name: path.read_text(encoding="utf-8").split() for name, path in paths.items()}
    rows = [(image, name) for name, images in names.items() for image in images]
    lists = pd.DataFrame(rows, columns=["image", "list"], dtype=str)
    reject_repeated(lists["image"], raw_dir / "train_val_list.txt and test_list.txt")
    return lists


def _table_path(raw_dir: Path) -> Path:
    found = sorted(raw_dir.glob("Data_Entry_2017*.csv"))
    if not found:
        raise InputError(
            f"{raw_dir} has no table, neither NIH's Data_Entry_2017*.csv nor CheXpert's train.csv; is raw_dir the "
            "folder of the tables?"
        )
    if len(found) > 1:
        raise InputError(
            f"{raw_dir} has several tables, {name_some([path.name for path in found])}; keep the one to use"
        )
    return found[0]


def _label_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    # 836 combinations for 112,120 images: each is parsed once.
    codes, combinations = pd.factorize(table["labels"])
    matrix = np.zeros((len(combinations), len(CLASSES)), np.uint8)
    for row, combination in enumerate(combinations):
        labels = combination.split("|")
        wrong = [label for label in labels if label not in CLASSES]
        if wrong or (NO_FINDING in labels and len(labels) > 1):
            image = table["image"][codes == row].iloc[0]
            problem = f"unknown label {wrong[0]!r}" if wrong else f"{NO_FINDING} beside other labels"
            raise InputError(f"{path}: {problem} at image {image}; the classes are {', '.join(CLASSES)}")
        matrix[row, [CLASSES.index(label) for label in labels]] = 1
    return pd.DataFrame(matrix[codes], columns=list(CLASSES), index=table.index)


def _patients(table: pd.DataFrame, path: Path) -> pd.Series:
    wrong = ~table["patient"].str.fullmatch(r"\d{1,18}")
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(f"{path}: Patient ID {row['patient']!r} of image {row['image']} is no whole number")
    return table["patient"].astype(np.int64)


def _ages(table: pd.DataFrame, path: Path) -> pd.Series:
    """Whole years, from `58`, `058Y`, `006M` or `012D`."""
    parts = table["age"].str.extract(re.compile(r"^(\d{1,6})([YMD]?)$"))
    if parts[0].isna().any():
        row = table[parts[0].isna()].iloc[0]
        raise InputError(f"{path}: Patient Age {row['age']!r} of image {row['image']} is no age")
    years = np.floor(parts[0].astype(float) * parts[1].map(_YEARS_OF_UNIT)).astype("Int64")
    impossible = years > OLDEST
    if impossible.any():
        warn(f"{path}: {impossible.sum()} ages above {OLDEST} years are left empty")
    return years.mask(impossible)
