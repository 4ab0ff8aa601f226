"""What all visitors share: the networks, which answer one question at a time, what is known of them, and samples."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS, MODELS
from cxr.models.device import init_device
from tools.app.record import Record, read_record
from tools.app.samples import Sample, read_samples
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.output import thresholds_of
from tools.predict.predicting import Answer, answer_pictures
from tools.predict.reading import DICOM_SUFFIXES, Failure, Picture, decode_picture

_SIGNATURES = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (128, b"DICM"))  # of PNG, JPEG and DICOM, and where


class Asked(NamedTuple):
    """An image and what the networks say of it."""

    picture: Picture
    answer: Answer


class Desk:
    """The networks, asked from any thread and answering in one of their own.

    So memory and PyTorch's threads stay those of one question, however many wait.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._thread = ThreadPoolExecutor(1, "desk")

    def ask(self, file: bytes, name: str) -> Asked | Failure:
        """What the networks say of the image in `file`, as tools.predict would; or why they say nothing.

        Args:
            file: the bytes of a PNG, JPEG or DICOM file.
            name: the file's, which may end as DICOM files do.
        """
        return self._thread.submit(self._ask, file, Path(name)).result()

    def map(self, picture: Picture, name: str) -> NDArray[np.float64]:
        """Where the networks see the class `name`, float64 [size, size], 0 or more.

        Raises:
            InputError: where a network has no such map, or memory is short.
        """
        return self._thread.submit(self._map, picture, CLASSES.index(name)).result()

    def _ask(self, file: bytes, path: Path) -> Asked | Failure:
        if not is_known_kind(file, path):
            return Failure(path, "neither a PNG, nor a JPEG, nor a DICOM file" if file else "an empty file")
        try:
            picture = decode_picture(file, path, self.ensemble.image_size, is_shown=True)
            if isinstance(picture, Failure):
                return picture
            (answer,) = answer_pictures([picture], self.ensemble)
        except InputError as error:
            return Failure(path, str(error))
        return Asked(picture, answer)

    def _map(self, picture: Picture, column: int) -> NDArray[np.float64]:
        (heat,) = self.ensemble.maps(picture.square[None], np.zeros(1, np.int64), np.array([column]))
        return heat


def is_known_kind(file: bytes, path: Path) -> bool:
    """Whether `file` begins as a PNG, JPEG or DICOM file, or is called as the last: Pillow would open much more."""
    begins = any(file.startswith(signature, place) for place, signature in _SIGNATURES)
    return begins or (bool(file) and path.suffix.lower() in DICOM_SUFFIXES)


class Service(NamedTuple):
    """All that a page needs and no visitor owns."""

    desk: Desk
    thresholds: dict[str, float]  # of each class that was learned, after calibration
    record: Record
    samples: list[Sample]


@cache
def service() -> Service:
    """Load the networks that evaluate measured, what it measured, and samples of test; once in this process.

    Raises:
        InputError: where anything of it is missing, broken, or of other networks.
    """
    if not DECISIONS.is_file():
        raise InputError(
            f"there is no {DECISIONS}, so nobody to ask: run `make repro`, which takes minutes, or `dvc pull`"
        )
    # As many threads as tools.predict takes: the numbers are the same to the last digit.
    ensemble = load_ensemble([], init_device(os.cpu_count() or 1, deterministic=True))
    thresholds = thresholds_of(ensemble)
    if ensemble.decisions is None or thresholds is None:
        raise InputError(f"{MODELS} holds other networks than {DECISIONS} was made for: run `dvc repro`")
    learned = {name: value for name, value in thresholds.items() if value is not None}
    return Service(Desk(ensemble), learned, read_record(ensemble.decisions), read_samples())
