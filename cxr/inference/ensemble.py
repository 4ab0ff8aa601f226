"""The trained ensemble: load its members, predict probabilities, and average saliency maps."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.paths import IMAGES
from cxr.inference.saliency import Method, saliency_maps
from cxr.inference.tta import View, predict_probabilities
from cxr.models.classifier import Classifier
from cxr.models.device import translate_torch_errors
from cxr.models.image_store import ImageStore
from cxr.models.members import Member
from cxr.models.model_file import load_model


class LoadedMember(NamedTuple):
    """A trained member of the ensemble, ready to predict."""

    member: Member
    classifier: Classifier
    description: dict[str, Any]  # of its model file


def load_members(members: Sequence[Member], image_size: int, device: torch.device) -> list[LoadedMember]:
    """Load the network of each member onto `device`.

    Raises:
        InputError: if a model file is missing, broken, or was trained on images of another size.
    """
    return [_load_member(member, image_size, device) for member in members]


def check_no_leak(members: Sequence[LoadedMember], test: set[int], val: set[int]) -> None:
    """Check the patients in the descriptions of the model files: none of test, and none of val in training.

    A file that does not name its validation patients is checked for test only.

    Args:
        members: the networks.
        test: the patients of test, on whom no member may have been trained or validated.
        val: the patients of val, on whom thresholds and calibration are fitted and no member may have been trained.

    Raises:
        InputError: naming the model file and one of the patients.
    """
    for member, _, description in members:
        seen, validated = set(description.get("patients", [])), set(description.get("val_patients", []))
        trained = seen - validated if validated else set()
        for name, leaked, what in (
            ("test", sorted(test & seen), "its metrics would be too good"),
            ("val", sorted(val & trained), "thresholds and calibration would be fitted to its training images"),
        ):
            if leaked:
                raise InputError(
                    f"{member.file} was trained on {len(leaked):,} patients of {name}, such as {leaked[0]}: {what}. "
                    "Train again, or restore the split that it was trained with"
                )


def predict_members(
    members: Sequence[LoadedMember], images: ImageStore, batch_size: int, views: list[View]
) -> dict[Member, NDArray[np.float64]]:
    """Predict the probabilities of each member, averaged over `views`.

    Returns:
        For each member float64 [images, 15]; nan for classes without a label in its training images.
    """
    probabilities = {}
    for member, classifier, description in members:
        with translate_torch_errors():
            probabilities[member] = predict_probabilities(classifier, images, batch_size, views)
        probabilities[member][:, untrained_columns(description)] = np.nan
    return probabilities


def untrained_columns(description: dict[str, Any]) -> list[int]:
    """Return the columns of the classes without labels in training, from the description of a model file."""
    return [CLASSES.index(name) for name in description.get("untrained", [])]


def mean_saliency_maps(
    method: Method, classifiers: Sequence[Classifier], images: ImageStore, classes: NDArray[np.int64], batch_size: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the mean over the networks of each image's saliency map, float64 [side, side].

    For the other arguments see `cxr.inference.saliency.saliency_maps`.
    """
    by_network = [saliency_maps(method, classifier, images, classes, batch_size) for classifier in classifiers]
    for maps in zip(*by_network, strict=True):
        yield np.mean(maps, axis=0, dtype=np.float64)


def _load_member(member: Member, image_size: int, device: torch.device) -> LoadedMember:
    classifier, description = load_model(member.file)
    if description["image_size"] != image_size:
        raise InputError(
            f"{member.file} expects {description['image_size']} px, but {IMAGES} has {image_size} px; train again"
        )
    return LoadedMember(member, classifier.to(device), description)
