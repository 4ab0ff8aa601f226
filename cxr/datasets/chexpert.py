"""CheXpert (Irvin et al., AAAI 2019): its two tables, and the eight classes that it has in common with NIH's data set.

`raw_dir` is the unpacked folder with train.csv and valid.csv, in the small or the full size. The name of an image is
its path in that folder. The other seven classes are unknown for every image and excluded from the loss and all metrics.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import read_strings, reject_duplicates
from cxr.datasets.params import CheXpert

# CheXpert's name and NIH's name of each class that means the same in both. Lung Lesion and Pleural Other are left out:
# Lung Lesion covers both Mass and Nodule, and Pleural Other is not only thickening.
SHARED = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "No Finding": "No Finding",
    "Pleural Effusion": "Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
_COLUMNS = {
    "Path": "path",
    "Sex": "sex",
    "Age": "age",
    "Frontal/Lateral": "side",
    "AP/PA": "view",
    **{name: name for name in SHARED},
}
_SEX = {"Male": "M", "Female": "F", "Unknown": ""}
_PATH = r"(?a)(?:^|/)(?P<image>(?:train|valid)/patient(?P<patient>\d{1,18})/study\d+/view\d+_(?:frontal|lateral)\.jpg)$"
_LABEL_VALUES = {"unknown": UNKNOWN, "negative": 0, "positive": 1}
# The official split, by the table that an image is in.
_TABLES = {"train_val": "train.csv", "test": "valid.csv"}


def has_layout(raw_dir: Path) -> bool:
    """Return whether `raw_dir` is in the layout of CheXpert."""
    return os.path.lexists(raw_dir / "train.csv")


def read_table(raw_dir: Path, label_policy: CheXpert) -> pd.DataFrame:
    """Read train.csv and, if it exists, valid.csv.

    Returns:
        The columns of `cxr.datasets.nih.read_table`. Labels may be `UNKNOWN`, and sex and view may be empty. Lateral
        images, if `label_policy` includes them, have the view lateral.

    Raises:
        InputError: if a table lacks a column or has no rows, an image is listed more than once, or a value is invalid.
    """
    parts = [_read_part(path, label_policy) for path in _tables(raw_dir).values()]
    table = pd.concat(parts, ignore_index=True)
    reject_duplicates(table["image"], raw_dir / "train.csv and valid.csv")
    return table.sort_values("image", ignore_index=True)


def read_patients(raw_dir: Path) -> pd.DataFrame:
    """Read the columns image and patient of both tables."""
    return pd.concat([_parse_paths(read_strings(path, {"Path": "path"}), path) for path in _tables(raw_dir).values()])


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """Read the official split: columns image and list, train_val for train.csv and test for valid.csv."""
    lists = [
        _parse_paths(read_strings(path, {"Path": "path"}), path).assign(list=name)
        for name, path in _tables(raw_dir).items()
    ]
    return pd.concat(lists, ignore_index=True)[["image", "list"]]


def _tables(raw_dir: Path) -> dict[str, Path]:
    """Return the path of each table that exists, by the name of its part of the official split."""
    return {name: raw_dir / file for name, file in _TABLES.items() if os.path.lexists(raw_dir / file)}


def _read_part(path: Path, label_policy: CheXpert) -> pd.DataFrame:
    raw = read_strings(path, _COLUMNS)
    names = _parse_paths(raw, path)
    _check_values(raw, names["image"], path)
    is_lateral = raw["side"] == "Lateral"
    metadata = names.assign(
        age=raw["age"].astype("Int64"),
        sex=raw["sex"].map(_SEX),
        view=raw["view"].mask(is_lateral, "lateral"),
    )
    table = pd.concat([metadata, _parse_labels(raw, label_policy)], axis=1)
    return table if label_policy.lateral else table[~is_lateral]


def _parse_paths(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the image name and patient number of each row, parsed from the column path."""
    names = raw["path"].str.extract(_PATH)
    if names["image"].isna().any():
        wrong = raw["path"][names["image"].isna()].iloc[0]
        raise InputError(
            f"{path}: invalid Path {wrong!r}; expected train/patient…/study…/view…_frontal.jpg or …_lateral.jpg"
        )
    return names.astype({"patient": np.int64})


def _check_values(raw: pd.DataFrame, images: pd.Series, path: Path) -> None:
    is_valid = {
        "Sex": raw["sex"].isin(_SEX),
        "Age": raw["age"].str.fullmatch("[0-9]{1,3}"),
        "Frontal/Lateral": raw["side"].isin(["Frontal", "Lateral"]),
        "AP/PA": raw["view"].isin(["AP", "PA", "LL", "RL", ""]),
        **{name: raw[name].str.fullmatch(r"(-?1|0)(\.0)?|") for name in SHARED},
    }
    for column, valid in is_valid.items():
        if not valid.all():
            value = raw[_COLUMNS[column]][~valid].iloc[0]
            raise InputError(f"{path}: invalid {column} {value!r} of image {images[~valid].iloc[0]}")


def _parse_labels(raw: pd.DataFrame, label_policy: CheXpert) -> pd.DataFrame:
    values = {
        "1": 1,
        "0": 0,
        "-1": _LABEL_VALUES[label_policy.uncertain],
        "": _LABEL_VALUES[label_policy.unmentioned],
    }
    labels = pd.DataFrame(UNKNOWN, index=raw.index, columns=list(CLASSES), dtype=np.uint8)
    for source, target in SHARED.items():
        labels[target] = raw[source].str.removesuffix(".0").map(values).astype(np.uint8)
    return labels
