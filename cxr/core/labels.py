"""The 15 classes of NIH ChestX-ray14 (14 findings and No Finding) and the encoding of labels."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
# The order of the classes in every array and file.
CLASSES = tuple(sorted((*FINDINGS, NO_FINDING)))

# The value of an unknown label in uint8 arrays. NIH's labels are all known; CheXpert's are not.
UNKNOWN = 255


def label_matrix(table: pd.DataFrame) -> NDArray[np.uint8]:
    """Return the 15 class columns of `table` as an array, uint8 [rows, 15]: 0, 1 or `UNKNOWN`."""
    return table[list(CLASSES)].to_numpy(np.uint8)


def fill_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with the 15 class columns as uint8 and missing labels replaced by `UNKNOWN`."""
    return table.assign(**{name: table[name].fillna(UNKNOWN).astype(np.uint8) for name in CLASSES})
