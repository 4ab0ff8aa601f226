"""Radiologists' labels of NIH's images, published by Google: optional tables in `raw_dir`.

All findings: 810 posteroanterior images of NIH's official test list, each read by five radiologists; a finding is
present if most of them report it (Nabulsi et al., Deep learning for distinguishing normal versus abnormal chest
radiographs and generalization to two unseen diseases tuberculosis and COVID-19, Scientific Reports 11, 2021).

Four findings: 1,962 images of the official test list and 2,414 others, each read by at least three radiologists and
adjudicated (Majkowska et al., Chest radiograph interpretation with deep learning models: assessment with
radiologist-adjudicated reference standards and population-adjusted evaluation, Radiology 294, 2020).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxr.core.errors import InputError
from cxr.core.labels import FINDINGS, UNKNOWN
from cxr.core.tables import check_images, check_values, read_strings

# The classes that a column stands for: with several, it is positive if one of them is present.
ALL_FINDINGS = {name.replace("_", " "): (name,) for name in FINDINGS}
FOUR_FINDINGS = {
    "Pneumothorax": ("Pneumothorax",),
    "Nodule or mass": ("Nodule", "Mass"),
    "Airspace opacity": ("Consolidation", "Edema", "Infiltration", "Pneumonia"),
}
TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {"all_findings": ALL_FINDINGS, "four_findings": FOUR_FINDINGS}
_LABELS = ("test_labels", "validation_labels")
_READERS = ("individual_readers", "test_individual_readers")
_ALIASES = {"Image Index": "image", "Image ID": "image", "Reader ID": "reader", "Nodule/mass": "Nodule or mass"}
_VALUES = {"YES": 1, "NO": 0, "HEDGE": UNKNOWN}


class ExpertLabels(NamedTuple):
    """The radiologists' labels of one table.

    Attributes:
        targets: the classes that each finding of the table stands for.
        labels: image and a column for each finding, 0, 1 or `UNKNOWN`: the agreed label.
        readers: image, reader and the same columns: the labels of each radiologist; may have no rows.
    """

    targets: Mapping[str, tuple[str, ...]]
    labels: pd.DataFrame
    readers: pd.DataFrame


def read_expert_labels(raw_dir: Path) -> dict[str, ExpertLabels]:
    """Read the tables in `raw_dir`, such as `all_findings_expert_labels_test_labels.csv`, by `TABLES`.

    Files with and without this prefix in a folder `all_findings_expert_labels`, as Google publishes them, are read too.
    A table without files is left out.

    Raises:
        InputError: if a file is not such a table.
    """
    found = {}
    for name, targets in TABLES.items():
        labels = [_read(path, targets) for path in _existing(raw_dir, name, _LABELS)]
        readers = [_read_readers(path, targets) for path in _existing(raw_dir, name, _READERS)]
        if labels:
            table = pd.concat(labels, ignore_index=True)
            check_images(table["image"], raw_dir / f"{name}_expert_labels")
            none = pd.DataFrame(columns=["image", "reader", *targets])
            found[name] = ExpertLabels(targets, table, pd.concat(readers) if readers else none)
        elif readers:
            raise InputError(f"{raw_dir} has the readers of {name}_expert_labels but not their labels; add the labels")
    return found


def _existing(raw_dir: Path, name: str, parts: tuple[str, ...]) -> list[Path]:
    prefix = f"{name}_expert_labels"
    names = [name for part in parts for name in (f"{prefix}_{part}", f"{prefix}/{part}", f"{prefix}/{prefix}_{part}")]
    return [path for name in names if os.path.lexists(path := raw_dir / f"{name}.csv")]


def _read(path: Path, targets: Mapping[str, tuple[str, ...]], *keys: str) -> pd.DataFrame:
    table = read_strings(path, ("image", *keys, *targets), _ALIASES)
    check_values(table, dict.fromkeys(targets, "|".join(_VALUES)), path)
    return table.assign(**{name: table[name].map(_VALUES).astype("uint8") for name in targets})


def _read_readers(path: Path, targets: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Read the labels of each radiologist; of images that one has read twice, the first reading."""
    return _read(path, targets, "reader").drop_duplicates(["image", "reader"])
