"""This project's tables: rows of images, with a column of 0, 1 or nothing for each of the 15 classes."""

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN

SPLITS = ("train", "val", "test")


def read_strings(path: Path, columns: Mapping[str, str], also: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read some columns of a CSV table as they stand, all str.

    Args:
        path: of the table.
        columns: the names that they have there, and those that they get.
        also: other names that they may have there, and those of `columns` that these stand for.

    Raises:
        InputError: where it is no such table, lacks a column, or has no rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more fields than the header
            raw = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None
    raw = raw.rename(columns=dict(also or {}))
    missing = [column for column in columns if column not in raw.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(raw.columns)}")
    if raw.empty:
        raise InputError(f"{path} has a header but no rows")
    return raw[list(columns)].rename(columns=dict(columns))


def reject_repeated(images: pd.Series, path: Path) -> None:
    """Raise InputError, naming `path`, where an image is there more than once."""
    repeated = sorted(set(images[images.duplicated()]))
    if repeated:
        raise InputError(f"{path}: {len(repeated)} images are there more than once: {name_some(repeated)}")


def write_sample(table: pd.DataFrame, path: Path) -> None:
    """Write `data/sample.csv`: an unknown label is an empty field."""
    labels = table[list(CLASSES)].astype("UInt8")
    write_csv(pd.concat([table.drop(columns=list(CLASSES)), labels.mask(labels == UNKNOWN)], axis=1), path)


def read_sample(path: Path) -> pd.DataFrame:
    """Read `data/sample.csv`.

    Returns:
        A row an image: image (str), patient (int), age (years, may be missing), sex and view (str), then the 15 classes
        (uint8: 0, 1 or `UNKNOWN`).
    """
    types: dict[Hashable, Any] = {
        "image": str,
        "sex": str,
        "view": str,
        "age": "Int64",
        **dict.fromkeys(CLASSES, "UInt8"),
    }
    missing = {name: [""] for name in ("age", *CLASSES)}
    return fill_unknown(pd.read_csv(path, dtype=types, keep_default_na=False, na_values=missing))


def fill_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the 15 classes as uint8, and `UNKNOWN` where a label is missing."""
    return table.assign(**{name: table[name].fillna(UNKNOWN).astype(np.uint8) for name in CLASSES})


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
    """The 15 class columns of `table` as an array, uint8 [rows, 15]: 0, 1 or `UNKNOWN`."""
    return table[list(CLASSES)].to_numpy(np.uint8)


def name_some(names: list[str], at_most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
