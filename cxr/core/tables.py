"""Reading CSV tables, and the sample and split tables of the pipeline."""

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.core.errors import InputError, format_names
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN, fill_unknown

SPLITS = ("train", "val", "test")


def read_strings(path: Path, columns: Mapping[str, str], aliases: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read columns of a CSV table as strings, without conversion.

    Args:
        path: the table.
        columns: maps the name of each column to read to its name in the result.
        aliases: maps alternative column names to names in `columns`.

    Raises:
        InputError: if the file is not a CSV table, lacks a column, or has no rows.
    """
    raw = _read_csv(path).rename(columns=dict(aliases or {}))
    missing = [column for column in columns if column not in raw.columns]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; its columns are {', '.join(raw.columns)}")
    if raw.empty:
        raise InputError(f"{path} has a header but no rows")
    return raw[list(columns)].rename(columns=dict(columns))


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more fields than the header
            return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV table: {error}") from None


def reject_duplicates(images: pd.Series, source: object) -> None:
    """Raise InputError if an image name occurs more than once; the message starts with `source`."""
    repeated = sorted(set(images[images.duplicated()]))
    if repeated:
        raise InputError(f"{source}: {len(repeated):,} images are listed more than once: {format_names(repeated)}")


def write_sample(table: pd.DataFrame, path: Path) -> None:
    """Write `data/sample.csv`; unknown labels become empty fields."""
    labels = table[list(CLASSES)].astype("UInt8")
    write_csv(pd.concat([table.drop(columns=list(CLASSES)), labels.mask(labels == UNKNOWN)], axis=1), path)


def read_sample(path: Path) -> pd.DataFrame:
    """Read `data/sample.csv`.

    Returns:
        One row for each image: image (str), patient (int), age (years, may be missing), sex and view (str), then the 15
        classes (uint8: 0, 1 or `UNKNOWN`).
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


def read_sample_with_split(sample_path: Path, split_path: Path) -> pd.DataFrame:
    """Read `data/sample.csv` and add the column split (train, val or test) of `data/split.csv`.

    Raises:
        InputError: if the two files do not list the same images in the same order.
    """
    sample, split = read_sample(sample_path), pd.read_csv(split_path, dtype={"image": str, "split": str})
    if list(sample["image"]) != list(split["image"]):
        raise InputError(f"{split_path} does not match {sample_path}; run `python -m stages.split` or `dvc repro`")
    return sample.assign(split=split["split"])


def is_synthetic(raw_dir: Path) -> bool:
    """Return whether the images in `raw_dir` are synthetic: the folder then has a file SYNTHETIC.txt."""
    return (raw_dir / "SYNTHETIC.txt").is_file()
