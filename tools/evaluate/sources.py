"""Sources of predictions: a file, or networks that predict the images of the labels."""

import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.errors import InputError, format_names, warn
from cxr.core.prefetch import prefetch_map
from cxr.core.progress import progress
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.external import fixed_decisions
from cxr.evaluation.summary import Predictions, average_members
from cxr.images.decode import decode_and_resize, image_errors
from cxr.images.raw_images import RawImages
from cxr.inference.ensemble import untrained_columns
from cxr.inference.tta import predict_probabilities
from cxr.models.classifier import Classifier
from cxr.models.device import translate_torch_errors
from cxr.models.image_store import ImageStore
from cxr.models.members import Member
from tools.evaluate.labels import LabelSet, describe_lacking, lacking_classes
from tools.evaluate.predictions import match_predictions, read_predictions
from tools.predict.ensemble import Ensemble

UNKNOWN_PATIENTS = "Whether these patients were used for training is not known."


class PredictionSource(NamedTuple):
    """Predictions with everything that is known about them.

    Attributes:
        names: of the files that were measured.
        test: the images, labels and probabilities.
        decisions: thresholds and calibration, none of them fitted to these images.
        is_carried_over: whether the decisions are those of the original validation.
        descriptions: of the model files, by the member's name; empty for predictions of a file.
        classifiers: the networks; empty for predictions of a file.
        images: uint8 [images, side, side], a row for each image of `test`; None for predictions of a file.
        leak: what is known about training on these patients.
        notes: what was left out or assumed.
    """

    names: list[str]
    test: Predictions
    decisions: Decisions
    is_carried_over: bool
    descriptions: dict[str, dict[str, Any]]
    classifiers: list[Classifier]
    images: NDArray[np.uint8] | None
    leak: str
    notes: list[str]


def read_source(path: Path, labels: LabelSet, threshold: float, *, is_logits: bool) -> PredictionSource:
    """Return the predictions of a CSV file; they are predicted positive at `threshold`.

    Raises:
        InputError: if the file is invalid, or has no image in common with the labels.
    """
    predictions, notes = read_predictions(path, is_logits=is_logits)
    table, probabilities, more = match_predictions(predictions, labels, path)
    member = Member(path.stem, 0)
    decisions = fixed_decisions([safe_name(path.stem)], threshold, synthetic=labels.synthetic)
    test = average_members(table, {member: probabilities})
    return PredictionSource([path.name], test, decisions, False, {}, [], None, UNKNOWN_PATIENTS, [*notes, *more])  # noqa: FBT003


def predict_source(
    ensemble: Ensemble, labels: LabelSet, images: NDArray[np.uint8], threshold: float, batch_size: int
) -> PredictionSource:
    """Return the predictions of networks for the images of the labels, with their own decisions if there are any.

    Args:
        ensemble: the networks.
        labels: a row for each image.
        images: uint8 [images, side, side].
        threshold: of all classes, for networks without decisions.
        batch_size: images in a batch.
    """
    members = list_files(ensemble.files)
    store = ImageStore(images, np.arange(len(images)), ensemble.device)
    by_member = {}
    for member, classifier, description in zip(members, ensemble.classifiers, ensemble.descriptions, strict=True):
        with translate_torch_errors():
            by_member[member] = predict_probabilities(classifier, store, batch_size, ensemble.views)
        by_member[member][:, untrained_columns(description)] = np.nan
    names = [str(member) for member in members]
    decisions = ensemble.decisions or fixed_decisions(map(safe_name, names), threshold, synthetic=labels.synthetic)
    lacking = [name for name in lacking_classes(labels) if name not in ensemble.untrained]
    return PredictionSource(
        names=[file.name for file in ensemble.files],
        test=average_members(labels.table, by_member),
        decisions=decisions.model_copy(update={"synthetic": labels.synthetic}),
        is_carried_over=ensemble.decisions is not None,
        descriptions=dict(zip(names, ensemble.descriptions, strict=True)),
        classifiers=ensemble.classifiers,
        images=images,
        leak=UNKNOWN_PATIENTS,
        notes=[
            *describe_lacking(list(ensemble.untrained), "a network"),
            *describe_lacking(lacking, f"the table of labels ({labels.name})"),
        ],
    )


def safe_name(name: str) -> str:
    """Return a name that `data/decisions.json` allows for a member."""
    return name if re.fullmatch(r"[A-Za-z0-9_.]+-[0-9]+", name) else re.sub(r"[^A-Za-z0-9_.]", "_", name) + "-0"


def list_files(files: Sequence[Path]) -> list[Member]:
    """Return a member for each model file, named as the file: `resnet10t-1.safetensors` is resnet10t with seed 1.

    Raises:
        InputError: if two files have one name.
    """
    parts = [re.fullmatch(r"(.+)-([0-9]{1,9})", file.stem) for file in files]
    members = [
        Member(part[1], int(part[2])) if part else Member(file.stem, 0) for part, file in zip(parts, files, strict=True)
    ]
    if len(set(members)) < len(members):
        raise InputError(f"{format_names(list(map(str, files)))}: some have one name; rename them to tell them apart")
    return members


def check_patients(labels: LabelSet, ensemble: Ensemble, mode: str) -> tuple[LabelSet, str]:
    """Compare the patients with those that the networks were trained on, by number.

    Args:
        labels: the images to measure on.
        ensemble: the networks.
        mode: `check` refuses an overlap, `exclude` leaves these patients out, and `other` states that equal numbers
            are of other patients, as in the data of another hospital.

    Returns:
        The labels to measure on, and a sentence on what is known.

    Raises:
        InputError: if there is an overlap and `mode` is check, or no patient is left.
    """
    if not all("patients" in description for description in ensemble.descriptions):
        return labels, UNKNOWN_PATIENTS
    if ensemble.is_synthetic is not None and ensemble.is_synthetic != labels.synthetic:
        trained = "synthetic" if ensemble.is_synthetic else "real"
        return labels, f"The networks were trained on {trained} images only, so on none of these patients."
    seen = {patient for description in ensemble.descriptions for patient in description["patients"]}
    is_seen = labels.table["patient"].isin(seen)
    count = labels.table["patient"][is_seen].nunique()
    if not count:
        return labels, "No patient has the number of one in the training or validation data."
    if mode == "other":
        return labels, (
            f"{count:,} patients have the number of one in the training or validation data, but are stated to be "
            "others."
        )
    if mode == "check" or is_seen.all():
        raise InputError(
            f"the networks were trained on {count:,} patients with these numbers, such as "
            f"{labels.table['patient'][is_seen].iloc[0]}: the metrics would be too good. --patients exclude leaves "
            "them out; --patients other states that the numbers are of other people, as in another hospital"
        )
    left = labels.table[~is_seen].reset_index(drop=True)
    return labels._replace(table=left), f"{count:,} patients of the training or validation data are left out."


def decode_images(labels: LabelSet, folder: Path, size: int, path: Path) -> tuple[LabelSet, NDArray[np.uint8], int]:
    """Decode the images of the labels into an array at `path`; warn of files that cannot be read, and leave them out.

    Args:
        labels: the images.
        folder: with the image files, in a layout of `RawImages`.
        size: side of the network's input, pixels.
        path: of the array, a .npy file; only a few images are in memory at a time.

    Returns:
        The labels of the images that were decoded, the images, uint8 [images, size, size], and the number of files
        that cannot be read.

    Raises:
        InputError: if there is no image.
    """
    with RawImages(folder) as raw:
        is_there = labels.table["image"].map(raw.__contains__).astype(bool)
        names = list(labels.table["image"][is_there])
        if not names:
            raise InputError(f"{folder} has none of the {len(labels.table):,} images of the labels; see --images")
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (len(names), size, size))
        failed = _fill(array, raw, names)
    left = labels.table[is_there].reset_index(drop=True).drop(index=failed).reset_index(drop=True)
    notes = _describe_missing(labels.table["image"][~is_there], failed, folder)
    if left.empty:
        raise InputError(f"none of the images in {folder} can be read: see the warnings above")
    kept = np.delete(array, failed, axis=0) if failed else array
    return labels._replace(table=left, notes=(*labels.notes, *notes)), kept, len(failed)


def _fill(array: NDArray[np.uint8], raw: RawImages, names: list[str]) -> list[int]:
    """Decode the images into the rows of `array`; return the rows of those that cannot be read."""
    failed = []
    cores = os.cpu_count() or 1
    decoded = prefetch_map(partial(_decode, raw, array.shape[1]), names, cores, 16 * cores)
    for row, image in enumerate(progress(decoded, "decode", len(names), "images")):
        if isinstance(image, ValueError):
            failed.append(row)
            warn(f"{names[row]} cannot be read: {image}")
        else:
            array[row] = image
    return failed


def _decode(raw: RawImages, size: int, name: str) -> NDArray[np.uint8] | ValueError:
    try:
        with image_errors():
            return decode_and_resize(raw.read(name), size)
    except ValueError as error:
        return error


def _describe_missing(missing: pd.Series, failed: Iterable[int], folder: Path) -> list[str]:
    notes = []
    if len(missing):
        notes.append(
            f"{len(missing):,} labelled images are not in {folder.name}, and are left out: "
            f"{format_names(list(missing))}."
        )
    if count := len(list(failed)):
        notes.append(f"{count:,} images cannot be read, and are left out.")
    return notes
