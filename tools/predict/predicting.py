"""Files in, answers out: read ahead by threads, predicted by batch, thousands in bounded memory."""

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
from tools.predict.overlays import Overlays
from tools.predict.reading import Failure, Picture, read_picture


class Answer(NamedTuple):
    """What the ensemble says of one picture."""

    file: Path
    probabilities: NDArray[np.float64]  # [15], calibrated where the ensemble is
    called: NDArray[np.bool_]  # [15], at or above the threshold; none where there are no thresholds
    flags: tuple[str, ...]  # what speaks against a frontal chest X-ray
    heat_maps: tuple[Path, ...]


class HeatMaps(NamedTuple):
    """Which heat maps are wanted."""

    overlays: Overlays
    only: str | None  # this class's; else of each class that is called, or the most probable one where none is


def predict_files(
    files: Sequence[Path], ensemble: Ensemble, batch_size: int, wanted: HeatMaps | None = None
) -> Iterator[Answer | Failure]:
    """An answer for each of `files`, in their order, or why there is none.

    Raises:
        InputError: where no file could be predicted: pydicom lacks, memory is short, or a network has no heat map.
    """
    cores = os.cpu_count() or 1
    way = partial(read_picture, image_size=ensemble.image_size, is_shown=wanted is not None)
    read = prefetch_map(way, files, cores, 2 * batch_size)
    while batch := list(islice(read, batch_size)):
        answers = iter(answer_pictures([item for item in batch if isinstance(item, Picture)], ensemble, wanted))
        for item in batch:
            yield item if isinstance(item, Failure) else next(answers)


def answer_pictures(pictures: list[Picture], ensemble: Ensemble, wanted: HeatMaps | None = None) -> list[Answer]:
    """An answer for each of `pictures`, all of them in one batch; errors are those of `predict_files`."""
    if not pictures:
        return []
    squares = np.stack([picture.square for picture in pictures])
    raw = ensemble.predict(squares)
    decisions = ensemble.decisions
    called = raw >= decisions.thresholds if decisions else np.zeros(raw.shape, np.bool_)
    probabilities = decisions.calibration.apply(raw) if decisions else raw
    drawn = _draw(pictures, squares, _mapped(probabilities, called, wanted.only), ensemble, wanted) if wanted else {}
    return [
        Answer(picture.file, probabilities[row], called[row], picture.flags, tuple(drawn.get(row, ())))
        for row, picture in enumerate(pictures)
    ]


def _mapped(probabilities: NDArray[np.float64], called: NDArray[np.bool_], only: str | None) -> NDArray[np.bool_]:
    """Which classes of which pictures are mapped, bool [pictures, 15]."""
    if only:
        return np.broadcast_to(np.array(CLASSES) == only, called.shape)
    highest = probabilities == np.nanmax(probabilities, axis=1, keepdims=True)
    return np.where(called.any(axis=1, keepdims=True), called, highest)


def _draw(
    pictures: list[Picture],
    squares: NDArray[np.uint8],
    mapped: NDArray[np.bool_],
    ensemble: Ensemble,
    wanted: HeatMaps,
) -> dict[int, list[Path]]:
    """Write the heat maps; return those of each picture, by its place."""
    rows, classes = np.nonzero(mapped)
    written: dict[int, list[Path]] = {}
    for row, column, heat in zip(rows, classes, ensemble.maps(squares, rows, classes), strict=True):
        picture = pictures[row]
        path = wanted.overlays.write(picture.file, picture.shown, CLASSES[column], heat)
        written.setdefault(int(row), []).append(path)
    return written
