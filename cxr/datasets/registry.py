"""The data sets that can be read: whichever lies in a folder becomes one kind of table.

To add another: docs/data.md.
"""

from pathlib import Path

import pandas as pd

from cxr.core.errors import InputError
from cxr.datasets import chexpert, nih
from cxr.datasets.params import CheXpert


def read_table(raw_dir: Path, reading: CheXpert) -> pd.DataFrame:
    """Read the table of the data set in `raw_dir`.

    Args:
        raw_dir: a folder in NIH's or CheXpert's layout.
        reading: how CheXpert's labels are meant.

    Returns:
        A row an image, sorted by image name: image (str), patient (int), age (years, may be missing), sex and view
        (str, may be empty), then the 15 classes (uint8: 0, 1 or `cxr.core.labels.UNKNOWN`).

    Raises:
        InputError: where there is no folder, no table in it, or one with an error.
    """
    if not raw_dir.is_dir():
        raise InputError(f"raw_dir: there is no folder {raw_dir}; set raw_dir in params.yaml to NIH's or CheXpert's")
    return chexpert.read_table(raw_dir, reading) if chexpert.is_there(raw_dir) else nih.read_table(raw_dir)


def name_of(raw_dir: Path) -> str:
    """What the data set in `raw_dir` is called."""
    return "CheXpert" if chexpert.is_there(raw_dir) else "NIH ChestX-ray14"


def read_lists(raw_dir: Path) -> pd.DataFrame:
    """The data set's own split: columns image and list (train_val or test); no rows where it has none.

    Raises:
        InputError: where it is incomplete, or an image is listed twice.
    """
    return chexpert.read_lists(raw_dir) if chexpert.is_there(raw_dir) else nih.read_lists(raw_dir)
