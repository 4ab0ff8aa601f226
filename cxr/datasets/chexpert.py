"""CheXpert (Irvin et al., AAAI 2019): its two tables, and the eight classes that it shares with NIH ChestX-ray14.

`raw_dir` is the folder with train.csv and valid.csv, as it is unpacked, small or full size. An image's name is its path
from there. The other seven classes are unknown in every image: no network learns them, and no measure counts them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import read_strings, reject_repeated
from cxr.datasets.params import CheXpert

# What CheXpert calls the classes that mean the same in both. Its Lung Lesion is no mass and no nodule of NIH's in
# particular, and its Pleural Other is more than thickening: they are left out.
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
_NAME = r"(?:^|/)(?P<image>(?:train|valid)/patient(?P<patient>\d{1,18})/study\d+/view\d+_(?:frontal|lateral)\.jpg)$"
_MEANING = {"unknown": UNKNOWN, "negative": 0, "positive": 1}


def is_there(raw_dir: Path) -> bool:
    """Whether `raw_dir` is in CheXpert's layout."""
    return (raw_dir / "train.csv").is_file()


def read_table(raw_dir: Path, reading: CheXpert) -> pd.DataFrame:
    """Read train.csv, and valid.csv where it is there.

    Returns:
        As `cxr.datasets.nih.read_table`, but a label may be `UNKNOWN`, sex and view may be empty, and a lateral image,
        where `reading` takes them, has the view lateral.

    Raises:
        InputError: where a table lacks a column or has no rows, an image is there twice, or a row has a value that
            CheXpert does not use.
    """
    parts = [_read_part(path, reading) for path in _paths(raw_dir)]
    table = pd.concat(parts, ignore_index=True)
    reject_repeated(table["image"], raw_dir / "train.csv and valid.csv")
    return table.sort_values("image", ignore_index=True)


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """CheXpert's own split: columns image and list, train_val for train.csv and test for valid.csv."""
    parts = {"train_val": raw_dir / "train.csv", "test": raw_dir / "valid.csv"}
    there = {name: path for name, path in parts.items() if path.is_file()}
    lists = [_names(read_strings(path, {"Path": "path"}), path).assign(list=name) for name, path in there.items()]
    return pd.concat(lists, ignore_index=True)[["image", "list"]]


def _paths(raw_dir: Path) -> list[Path]:
    return [path for path in (raw_dir / "train.csv", raw_dir / "valid.csv") if path.is_file()]


def _read_part(path: Path, reading: CheXpert) -> pd.DataFrame:
    raw = read_strings(path, _COLUMNS)
    names = _names(raw, path)
    _check(raw, names["image"], path)
    lateral = raw["side"] == "Lateral"
    about = pd.DataFrame(
        {
            **names,
            "age": raw["age"].astype("Int64"),
            "sex": raw["sex"].map(_SEX),
            "view": raw["view"].mask(lateral, "lateral"),
        }
    )
    table = pd.concat([about, _labels(raw, reading)], axis=1)
    return table if reading.lateral else table[~lateral]


def _names(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Image and patient of each row, from where its file lies."""
    names = raw["path"].str.extract(_NAME)
    if names["image"].isna().any():
        wrong = raw["path"][names["image"].isna()].iloc[0]
        raise InputError(f"{path}: Path {wrong!r} is no train/patient…/study…/view…_frontal.jpg or …_lateral.jpg")
    return names.astype({"patient": np.int64})


def _check(raw: pd.DataFrame, images: pd.Series, path: Path) -> None:
    allowed = {
        "Sex": raw["sex"].isin(_SEX),
        "Age": raw["age"].str.fullmatch(r"\d{1,3}"),
        "Frontal/Lateral": raw["side"].isin(["Frontal", "Lateral"]),
        "AP/PA": raw["view"].isin(["AP", "PA", "LL", "RL", ""]),
        **{name: raw[name].str.fullmatch(r"(-?1|0)(\.0)?|") for name in SHARED},
    }
    for column, right in allowed.items():
        if not right.all():
            value = raw[_COLUMNS[column]][~right].iloc[0]
            raise InputError(f"{path}: {column} {value!r} of image {images[~right].iloc[0]} is no value of CheXpert's")


def _labels(raw: pd.DataFrame, reading: CheXpert) -> pd.DataFrame:
    meaning = {
        "1": 1,
        "0": 0,
        "-1": _MEANING[reading.uncertain],
        "": _MEANING[reading.unmentioned],
    }
    labels = pd.DataFrame(UNKNOWN, index=raw.index, columns=list(CLASSES), dtype=np.uint8)
    for theirs, ours in SHARED.items():
        labels[ours] = raw[theirs].str.removesuffix(".0").map(meaning).astype(np.uint8)
    return labels
