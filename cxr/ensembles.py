"""What the members of an ensemble say of images and where they look, and that none of them has seen these before."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr import networks
from cxr.batches import Pixels
from cxr.errors import InputError
from cxr.findings import CLASSES
from cxr.maps import Method, class_maps
from cxr.members import Member, list_members
from cxr.networks import Classifier
from cxr.params import EvaluateParams
from cxr.paths import IMAGES
from cxr.runtime import explaining_limits
from cxr.views import list_views, predict_probabilities


def seen_by_no_member(params: EvaluateParams, patients: set[int]) -> None:
    """Refuse networks that were trained on patients of test, or chosen by them.

    Raises:
        InputError: naming the network and some of the patients.
    """
    for member in list_members(params):
        known = sorted(patients & set(networks.describe(member.file).get("patients", [])))
        if known:
            raise InputError(
                f"{member.file} has seen {len(known):,} patients of test in training, as {known[0]}: its figures would "
                "be too good. Train again, or take the split that it was trained with"
            )


def predict_members(
    params: EvaluateParams, pixels: Pixels, image_size: int, device: torch.device
) -> dict[Member, NDArray[np.float64]]:
    """The probabilities of each of `models` x `seeds`, the mean over `views`, float64 [images, 15]; nan if untrained.

    Raises:
        InputError: where a member is missing, broken, or was trained on images of another size.
    """
    views, probabilities = list_views(params.views), {}
    for member in list_members(params):
        classifier = load_member(member, image_size, device)
        with explaining_limits():
            probabilities[member] = predict_probabilities(classifier, pixels, params.batch_size, views)
        probabilities[member][:, untrained_columns(networks.describe(member.file))] = np.nan
    return probabilities


def untrained_columns(about: dict[str, Any]) -> list[int]:
    """The columns of the classes that a network was not trained on, by what its file says of it."""
    return [CLASSES.index(name) for name in about.get("untrained", [])]


def load_member(member: Member, image_size: int, device: torch.device) -> Classifier:
    """A member's network, ready to predict; InputError where its file is missing, broken, or of another image size."""
    classifier, about = networks.load(member.file)
    if about["image_size"] != image_size:
        raise InputError(
            f"{member.file} was trained at {about['image_size']} px, {IMAGES} has {image_size}; train again"
        )
    return classifier.to(device)


def mean_maps(
    method: Method, classifiers: list[Classifier], pixels: Pixels, classes: NDArray[np.int64], batch_size: int
) -> Iterator[NDArray[np.float64]]:
    """The mean over the networks of the map of each of `pixels` for its class, float64 [side, side], one at a time.

    The arguments are those of `cxr.maps.class_maps`.
    """
    of_each = [class_maps(method, classifier, pixels, classes, batch_size) for classifier in classifiers]
    for maps in zip(*of_each, strict=True):
        yield np.mean(maps, axis=0, dtype=np.float64)
