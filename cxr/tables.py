"""NIH's tables and this project's own: rows of images, with one 0/1 column for each of the 15 classes."""

import re
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError, warn
from cxr.findings import CLASSES, NO_FINDING

SPLITS = ("train", "val", "test")
OLDEST = 120
_NIH_COLUMNS = {
    "Image Index": "image",
    "Finding Labels": "labels",
    "Patient ID": "patient",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view",
}
_YEARS_OF_UNIT = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


def read_nih_table(raw_dir: Path) -> pd.DataFrame:
    """Read any of the three published versions of NIH's table in `raw_dir`.

    Returns:
        A row an image, sorted by image name: image (str), patient (int), age (years, missing where it is above 120),
        sex and view (str), then the 15 classes (uint8, 0 or 1).

    Raises:
        InputError: where there is no table or more than one, or it lacks a column, has no rows, an unknown label, an
            image twice, or a patient or age that is no number.
    """
    path = _table_path(raw_dir)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more fields than the header
            raw = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None
    # NIH's own file has said Sex since 2020, copies of it and the older versions say Gender.
    raw = raw.rename(columns={"Patient Sex": "Patient Gender"})
    missing = [column for column in _NIH_COLUMNS if column not in raw.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(raw.columns)}")
    if raw.empty:
        raise InputError(f"{path} has a header but no rows")
    table = raw[list(_NIH_COLUMNS)].rename(columns=_NIH_COLUMNS)
    _reject_repeated(table["image"], path)
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


def read_official_lists(raw_dir: Path) -> pd.DataFrame:
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
    _reject_repeated(lists["image"], raw_dir / "train_val_list.txt and test_list.txt")
    return lists


def read_sample(path: Path) -> pd.DataFrame:
    """Read `data/sample.csv` as `read_nih_table` returns it."""
    types: dict[Hashable, Any] = {
        "image": str,
        "sex": str,
        "view": str,
        "age": "Int64",
        **dict.fromkeys(CLASSES, np.uint8),
    }
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values={"age": [""]})


def read_sample_with_split(sample_path: Path, split_path: Path) -> pd.DataFrame:
    """Read `data/sample.csv` with the column split, one of train, val and test, of `data/split.csv`.

    Raises:
        InputError: where the two are not of the same images in the same order.
    """
    sample, split = read_sample(sample_path), pd.read_csv(split_path, dtype={"image": str, "split": str})
    if list(sample["image"]) != list(split["image"]):
        raise InputError(
            f"{split_path} is not the split of {sample_path}; run `python -m stages.split`, or `dvc repro`"
        )
    return sample.assign(split=split["split"])


def is_synthetic(raw_dir: Path) -> bool:
    """Whether the images in `raw_dir` are drawn ones: their folder says so in a file called SYNTHETIC.txt."""
    return (raw_dir / "SYNTHETIC.txt").is_file()


def label_matrix(table: pd.DataFrame) -> NDArray[np.uint8]:
    """The 15 class columns of `table` as an array, uint8 [rows, 15]."""
    return table[list(CLASSES)].to_numpy(np.uint8)


def name_some(names: list[str], at_most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def _table_path(raw_dir: Path) -> Path:
    if not raw_dir.is_dir():
        raise InputError(
            f"raw_dir: there is no folder {raw_dir}; set raw_dir in params.yaml to a folder in NIH's layout"
        )
    found = sorted(raw_dir.glob("Data_Entry_2017*.csv"))
    if not found:
        raise InputError(f"{raw_dir} has no table Data_Entry_2017*.csv; is raw_dir the folder of NIH's tables?")
    if len(found) > 1:
        raise InputError(
            f"{raw_dir} has several tables, {name_some([path.name for path in found])}; keep the one to use"
        )
    return found[0]


def _reject_repeated(images: pd.Series, path: Path) -> None:
    repeated = sorted(set(images[images.duplicated()]))
    if repeated:
        raise InputError(f"{path}: {len(repeated)} images are there more than once: {name_some(repeated)}")


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
