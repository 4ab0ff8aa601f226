"""The supported data sets. The layout of `raw_dir` determines which one is read.

To add a data set, see docs/data.md.
"""

from pathlib import Path

import pandas as pd

from cxr.core.errors import InputError
from cxr.datasets import chexpert, nih
from cxr.datasets.params import CheXpert

NIH = "NIH ChestX-ray14"


def read_table(raw_dir: Path, label_policy: CheXpert) -> pd.DataFrame:
    """Read the table of the data set in `raw_dir`.

    Args:
        raw_dir: a folder in the layout of NIH or CheXpert.
        label_policy: reading of uncertain and unmentioned labels; ignored for NIH.

    Returns:
        One row for each image, sorted by image name: image (str), patient (int), age (years, may be missing), sex and
        view (str, may be empty), then the 15 classes (uint8: 0, 1 or `cxr.core.labels.UNKNOWN`).

    Raises:
        InputError: if the folder or its table is missing, or the table is invalid.
    """
    if not raw_dir.is_dir():
        raise InputError(f"raw_dir: folder {raw_dir} not found; set raw_dir in params.yaml to the data set")
    return chexpert.read_table(raw_dir, label_policy) if chexpert.has_layout(raw_dir) else nih.read_table(raw_dir)


def read_patients(raw_dir: Path) -> pd.DataFrame:
    """Read the columns image and patient of the table in `raw_dir`; no rows if there is no table.

    Raises:
        InputError: if the table is invalid.
    """
    return chexpert.read_patients(raw_dir) if chexpert.has_layout(raw_dir) else nih.read_patients(raw_dir)


def dataset_name(raw_dir: Path) -> str:
    """Return the name of the data set in `raw_dir`."""
    return "CheXpert" if chexpert.has_layout(raw_dir) else NIH


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """Read the official split of the data set: columns image and list (train_val or test); empty if there is none.

    Raises:
        InputError: if the split is incomplete or lists an image more than once.
    """
    return chexpert.read_lists(raw_dir) if chexpert.has_layout(raw_dir) else nih.read_lists(raw_dir)
