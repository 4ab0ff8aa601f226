"""Predictions and a sample as the stages leave them, written in no time: `tests/tools/test_compare.py` compares them.

The one stage of its repository imports this, so it imports little.
"""

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES
from cxr.core.paths import PREDICTIONS, SAMPLE

IMAGES = 240


def tables(first: int = 0, noise: float = 1, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and a sample of images numbered from `first` on, three a patient, half of them in test.

    The labels of an image follow from its number; how well they are predicted, from `noise` and `seed`.
    """
    numbers = np.arange(first, first + IMAGES)
    labels = np.array([np.random.default_rng(number).random(len(CLASSES)) < 0.3 for number in numbers])
    scores = labels + np.random.default_rng(seed).normal(0, noise, labels.shape)
    about = pd.DataFrame({"image": [f"{number:08d}_000.png" for number in numbers], "patient": numbers // 3})
    probabilities = pd.DataFrame(1 / (1 + np.exp(-scores)), columns=list(CLASSES))
    split = pd.Series(np.where(about["patient"] % 2, "test", "val"), name="split")
    sample = pd.concat([about, pd.DataFrame(labels.astype(np.uint8), columns=list(CLASSES))], axis=1)
    return pd.concat([about, split, probabilities], axis=1), sample


def write_tables(first: int, noise: float, seed: int) -> None:
    """Write both tables where the stages leave them."""
    PREDICTIONS.parent.mkdir(exist_ok=True)
    for table, path in zip(tables(first, noise, seed), (PREDICTIONS, SAMPLE), strict=True):
        table.to_csv(path, index=False)
