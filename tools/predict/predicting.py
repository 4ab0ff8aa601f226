"""Predictions for any number of files in bounded memory: threads read files ahead, and networks predict batches."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.core.labels import CLASSES
from cxr.core.prefetch import prefetch_map
from tools.predict.ensemble import Ensemble
from tools.predict.overlays import OverlayFolder
from tools.predict.reading import Failure, InputImage, read_image


class Prediction(NamedTuple):
    """The predictions for one image."""

    file: Path
    probabilities: NDArray[np.float64]  # [15], calibrated if the ensemble has a calibration
    is_predicted: NDArray[np.bool_]  # [15], at or above the threshold; all False without thresholds
    warnings: tuple[str, ...]
    saliency_maps: tuple[Path, ...]  # PNG files


class SaliencyOptions(NamedTuple):
    """Options for saliency maps."""

    folder: OverlayFolder
    only: str | None  # name of a class; None for predicted positives, or the most probable class if none


def predict_files(
    files: Sequence[Path], ensemble: Ensemble, batch_size: int, saliency: SaliencyOptions | None = None
) -> Iterator[Prediction | Failure]:
    """Yield the prediction for each of `files` in their order, or a `Failure` with the reason.

    Raises:
        InputError: if pydicom is missing, memory runs out, or a network has no saliency maps.
    """
    read = partial(read_image, image_size=ensemble.image_size, with_display=saliency is not None)
    loaded = prefetch_map(read, files, os.cpu_count() or 1, 2 * batch_size)
    while batch := list(islice(loaded, batch_size)):
        images = [item for item in batch if isinstance(item, InputImage)]
        predictions = iter(predict_images(images, ensemble, saliency))
        for item in batch:
            yield item if isinstance(item, Failure) else next(predictions)


def predict_images(
    images: list[InputImage], ensemble: Ensemble, saliency: SaliencyOptions | None = None
) -> list[Prediction]:
    """Return the prediction for each of `images`, which are one batch; errors are those of `predict_files`."""
    if not images:
        return []
    pixels = np.stack([image.pixels for image in images])
    uncalibrated = ensemble.predict(pixels)
    is_predicted, probabilities = ensemble.is_predicted(uncalibrated), ensemble.calibrate(uncalibrated)
    written: dict[int, list[Path]] = {}
    if saliency:
        selected = _select_classes(probabilities, is_predicted, saliency.only)
        written = _write_saliency_maps(images, pixels, selected, ensemble, saliency.folder)
    return [
        Prediction(image.file, probabilities[row], is_predicted[row], image.warnings, tuple(written.get(row, ())))
        for row, image in enumerate(images)
    ]


def _select_classes(
    probabilities: NDArray[np.float64], is_predicted: NDArray[np.bool_], only: str | None
) -> NDArray[np.bool_]:
    """Return the mask of the classes of each image that get a saliency map, bool [images, 15]."""
    if only:
        return np.broadcast_to(np.array(CLASSES) == only, is_predicted.shape)
    highest = probabilities == np.nanmax(probabilities, axis=1, keepdims=True)
    return np.where(is_predicted.any(axis=1, keepdims=True), is_predicted, highest)


def _write_saliency_maps(
    images: list[InputImage],
    pixels: NDArray[np.uint8],
    selected: NDArray[np.bool_],
    ensemble: Ensemble,
    folder: OverlayFolder,
) -> dict[int, list[Path]]:
    """Write the saliency maps of the `selected` classes, bool [images, 15]; return the files by index of the image."""
    rows, columns = np.nonzero(selected)
    written: dict[int, list[Path]] = {}
    for row, column, saliency in zip(rows, columns, ensemble.saliency_maps(pixels, rows, columns), strict=True):
        path = folder.write(images[row], CLASSES[column], saliency)
        written.setdefault(int(row), []).append(path)
    return written
