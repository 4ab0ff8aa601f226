"""Training and validation images with their labels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr.core.errors import InputError
from cxr.core.image_array import open_images
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.paths import IMAGES, SAMPLE, SPLIT
from cxr.core.tables import read_sample_with_split
from cxr.evaluation.metrics import has_both_classes, label_mask
from cxr.models.image_store import ImageStore


@dataclass(frozen=True)
class LabelledImages:
    """Images and their labels, float [images, 15] on the device, nan if unknown."""

    images: ImageStore
    labels: Tensor


class TrainingData(NamedTuple):
    """The data that every member is trained on."""

    train: LabelledImages
    val: LabelledImages
    image_size: int  # pixels
    patients: list[int]  # of train and val, sorted
    val_patients: list[int]  # sorted


def load_training_data(device: torch.device) -> TrainingData:
    """Open the images and read the labels of train and val.

    Raises:
        InputError: if a file is missing, the files do not belong together, or no class has both positives and
            negatives in val.
    """
    table = read_sample_with_split(SAMPLE, SPLIT)
    images, labels = open_images(IMAGES, list(table["image"])), label_matrix(table)
    rows = {name: np.flatnonzero(table["split"] == name) for name in ("train", "val")}
    if not has_both_classes(labels[rows["val"]]).any():
        raise InputError(
            "no class has both positives and negatives in val, so the best epoch cannot be chosen; raise val or "
            "sample.size"
        )
    train, val = (
        LabelledImages(ImageStore(images, row, device), label_tensor(labels[row], device)) for row in rows.values()
    )
    patients, val_patients = (
        sorted(set(table.loc[mask, "patient"].tolist())) for mask in (table["split"] != "test", table["split"] == "val")
    )
    return TrainingData(train, val, images.shape[1], patients, val_patients)


def label_tensor(labels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Convert labels of 0, 1 and `UNKNOWN`, uint8 [images, 15], to float on `device`, with nan for unknown labels."""
    return torch.from_numpy(np.where(label_mask(labels), labels, np.float32(np.nan))).float().to(device)


def untrained_classes(labels: Tensor) -> list[str]:
    """Return the classes without any known label, whose predictions are meaningless."""
    return [name for name, is_unknown in zip(CLASSES, labels.isnan().all(dim=0).tolist(), strict=True) if is_unknown]
