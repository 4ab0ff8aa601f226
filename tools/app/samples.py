"""Samples to look at: test images, which no network has learned from."""

from typing import NamedTuple

import pandas as pd

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.core.paths import SAMPLE, SPLIT
from cxr.core.tables import label_matrix, read_sample_with_split
from cxr.evaluation.params import EvaluateParams
from cxr.images.raw_images import RawImages


class Sample(NamedTuple):
    """A test image."""

    name: str
    labels: tuple[str, ...]
    file: bytes


def read_samples() -> list[Sample]:
    """A test image of each class, as `pick` finds them, as far as `raw_dir` has them.

    Without tables or images here there are none, and a warning: a page does without.
    """
    try:
        table = read_sample_with_split(SAMPLE, SPLIT)
        picked = pick(table[table["split"] == "test"])
        with RawImages(read_params(EvaluateParams).raw_dir) as images:
            return [Sample(name, labels, images.read(name)) for name, labels in picked.items() if name in images]
    except (InputError, OSError) as error:
        warn(f"there are no samples to show: {error}")
        return []


def pick(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Of each class the image with the fewest labels, the first by name, that no class before it has; with its labels.

    Args:
        table: a row an image: image, and a column for each of the 15 classes.
    """
    ordered = table.assign(labels=(label_matrix(table) == 1).sum(axis=1)).sort_values(["labels", "image"])
    picked: dict[str, tuple[str, ...]] = {}
    for name in CLASSES:
        of_class = ordered[(ordered[name] == 1) & ~ordered["image"].isin(picked)].head(1)
        for row in of_class.to_dict("records"):
            picked[row["image"]] = tuple(label for label in CLASSES if row[label] == 1)
    return picked
