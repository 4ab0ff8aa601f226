"""Reading CSV tables, and the sample and split tables of the pipeline."""

import io
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError, first_lines, format_names
from cxr.core.files import read_utf8, write_csv
from cxr.core.labels import CLASSES, UNKNOWN

SPLITS = ("train", "val", "test")
LISTS = ("train_val", "test")
# A name is refused if a segment of its path is empty, `.` or `..`, which could name another image a second time or a
# file outside raw_dir, or if it starts with =, +, - or @, since a spreadsheet would run it as a formula.
_IMAGE_NAME = r"(?!(?:.*/)?\.{0,2}(?:/|$))[^=+\-@\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*"
# Columns of data/sample.csv after the image.
_SAMPLE_FIELDS = {
    "patient": "[0-9]{1,18}",
    "age": "[0-9]{0,3}",
    "sex": "[MF]?",
    "view": r"\w*",
    **dict.fromkeys(CLASSES, "[01]?"),
}
# Columns of data/curves.csv after the member.
_CURVE_FIELDS = {
    "epoch": "int64",
    **dict.fromkeys(("lr", "train_loss", "val_loss", "val_auroc", "val_accuracy"), "float64"),
    **dict.fromkeys((f"val_accuracy.{name}" for name in CLASSES), "float64"),
}


def read_strings(
    path: Path,
    columns: Collection[str] | Mapping[str, str],
    aliases: Mapping[str, str] | None = None,
    *,
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """Read columns of a CSV table in UTF-8 as strings, without conversion; missing fields are empty strings.

    Args:
        path: the table.
        columns: the names of the columns to read; a mapping gives each its name in the result.
        aliases: maps alternative column names to names in `columns`.
        may_be_empty: whether the table may have a header only.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file is not a CSV table, lacks a column or has it twice, or has no rows.
    """
    rows = _read_rows(path)
    found = list(rows.iloc[0])
    header = [(aliases or {}).get(name, name) for name in found]
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; its columns are {', '.join(found)}")
    repeated = [found[at] for at, name in enumerate(header) if name in columns and header.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has the columns {', '.join(repeated)}, which mean the same; keep one of them")
    if len(rows) == 1 and not may_be_empty:
        raise InputError(f"{path} has a header but no rows")
    table = rows.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)[list(columns)]
    return table.rename(columns=dict(columns)) if isinstance(columns, Mapping) else table


def _read_rows(path: Path) -> pd.DataFrame:
    """Return the fields of every line, the header included."""
    try:
        return pd.read_csv(io.StringIO(read_utf8(path)), header=None, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not a CSV table: {first_lines(error)}") from None


def check_values(table: pd.DataFrame, patterns: Mapping[str, str], source: object) -> None:
    """Check columns of strings against a regular expression each.

    Raises:
        InputError: if a value does not match; the message starts with `source` and names the image of the row.
    """
    for column, pattern in patterns.items():
        invalid = ~table[column].str.fullmatch(pattern)
        if invalid.any():
            row = table[invalid].iloc[0]
            raise InputError(
                f"{source}: invalid {column} {row[column]!r} of image {row['image']}; correct the row (`dvc repro` "
                "writes the tables in data again)"
            )


def check_images(images: pd.Series, source: object) -> None:
    """Check the names of images: distinct, and safe as paths in `raw_dir` and in a spreadsheet.

    Raises:
        InputError: if a name is invalid, or is listed more than once; the message starts with `source`.
    """
    invalid = list(images[~images.str.fullmatch(_IMAGE_NAME)])
    if invalid:
        raise InputError(
            f"{source}: {len(invalid):,} invalid image names: {format_names([repr(name) for name in invalid])}; a name "
            "must be a file name or a path in raw_dir without '..', and not start with =, +, - or @"
        )
    reject_duplicates(images, source)


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

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not a table of distinct images, or a value is invalid, such as a label other than 0 and 1.
    """
    table = read_strings(path, ("image", *_SAMPLE_FIELDS))
    check_images(table["image"], path)
    check_values(table, _SAMPLE_FIELDS, path)
    labels = {name: table[name].replace("", str(UNKNOWN)).astype(np.uint8) for name in CLASSES}
    age = table["age"].mask(table["age"] == "").astype("Int64")
    return table.assign(patient=table["patient"].astype(np.int64), age=age, **labels)


def read_sample_with_split(sample_path: Path, split_path: Path) -> pd.DataFrame:
    """Read `data/sample.csv` and add the column split (train, val or test) of `data/split.csv`.

    Raises:
        FileNotFoundError: if a file is missing.
        InputError: if a table is invalid, the two do not list the same images and patients in the same order, or
            `check_patients` refuses the split.
    """
    sample, split = read_sample(sample_path), read_strings(split_path, ("image", "patient", "split"))
    patients = list(sample["patient"].astype(str))
    if list(sample["image"]) != list(split["image"]) or patients != list(split["patient"]):
        raise InputError(f"{split_path} does not match {sample_path}; run `python -m stages.split` or `dvc repro`")
    check_values(split, {"split": "|".join(SPLITS)}, split_path)
    check_patients(sample["patient"], split["split"], split_path)
    return sample.assign(split=split["split"])


def check_patients(patients: pd.Series, split: pd.Series, source: object) -> None:
    """Check the split of each image: every split has images, and no patient is in two.

    Raises:
        InputError: if the split is invalid; the message starts with `source`.
    """
    splits_of_patient = split.groupby(patients).nunique()
    repeated = [str(patient) for patient in splits_of_patient.index[splits_of_patient > 1]]
    if repeated:
        raise InputError(
            f"{source}: {len(repeated):,} patients are in more than one split: {format_names(repeated)}; run "
            "`python -m stages.split` again, or correct the official lists"
        )
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise InputError(f"{source}: {empty[0]} has no images: change the fractions in split, or increase sample.size")


def read_official(path: Path) -> pd.DataFrame:
    """Read `data/official.csv`: columns image and list (train_val or test); no rows without an official split.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not a table of distinct images, or a list is invalid.
    """
    table = read_strings(path, ("image", "list"), may_be_empty=True)
    check_images(table["image"], path)
    check_values(table, {"list": "|".join(LISTS)}, path)
    return table


def read_curves(path: Path) -> pd.DataFrame:
    """Read `data/curves.csv`: one row for each epoch of each member.

    Returns:
        Columns member (str), epoch (int64), lr, train_loss, val_loss, val_auroc, val_accuracy and val_accuracy.CLASS
        (float64; nan if undefined).

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not such a table.
    """
    table = read_strings(path, ("member", *_CURVE_FIELDS))
    try:
        return table.replace("", "nan").astype(_CURVE_FIELDS)
    except ValueError as error:
        raise InputError(f"{path}: {first_lines(error)}; run `python -m stages.train` or `dvc repro`") from None


def is_synthetic(raw_dir: Path) -> bool:
    """Return whether the images in `raw_dir` are synthetic: the folder then has a file SYNTHETIC.txt."""
    return (raw_dir / "SYNTHETIC.txt").is_file()
