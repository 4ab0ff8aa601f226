"""Test images to try the page with."""

from typing import NamedTuple

import pandas as pd

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.params import read_params
from cxr.core.paths import SAMPLE, SPLIT
from cxr.core.tables import read_sample_with_split
from cxr.evaluation.params import EvaluateParams
from cxr.images.decode import image_errors
from cxr.images.raw_images import RawImages


class SampleImage(NamedTuple):
    """A test image."""

    name: str
    labels: tuple[str, ...]
    file: bytes


def read_samples() -> list[SampleImage]:
    """Return the test images that `select_samples` selects and `raw_dir` contains.

    If a table, the folder or an image cannot be read, warn and return an empty list: the page works without samples.
    """
    try:
        table = read_sample_with_split(SAMPLE, SPLIT)
        selected = select_samples(table[table["split"] == "test"])
        with image_errors(), RawImages(read_params(EvaluateParams).raw_dir) as images:
            return [SampleImage(name, labels, images.read(name)) for name, labels in selected.items() if name in images]
    except (InputError, OSError, ValueError) as error:
        warn(f"the page has no test images: {error}")
        return []


def select_samples(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Select an image of each class: the one with the fewest labels, then the first by name, that is not yet selected.

    Args:
        table: one row for each image: image, and a column for each of the 15 classes.

    Returns:
        The labels of each selected image, by its name.
    """
    ordered = table.assign(labels=(label_matrix(table) == 1).sum(axis=1)).sort_values(["labels", "image"])
    selected: dict[str, tuple[str, ...]] = {}
    for name in CLASSES:
        candidates = ordered[(ordered[name] == 1) & ~ordered["image"].isin(selected)].head(1)
        for row in candidates.to_dict("records"):
            selected[row["image"]] = tuple(label for label in CLASSES if row[label] == 1)
    return selected
