"""State shared by all visitors of the page: the networks, their metrics, and the sample images."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS, METRICS, MODELS
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.schema import Metrics, nan_to_none
from cxr.models.device import init_device
from tools.app.samples import SampleImage, read_samples
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.predicting import Prediction, predict_images
from tools.predict.reading import Failure, InputImage, decode_image


class PredictedImage(NamedTuple):
    """An image and its prediction."""

    image: InputImage
    prediction: Prediction


class InferenceService:
    """Runs the networks in one thread, for requests from any number of threads.

    Requests are processed one at a time, so memory and CPU threads do not grow with the number of visitors.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._thread = ThreadPoolExecutor(1, "inference")

    def predict(self, file: bytes, name: str) -> PredictedImage | Failure:
        """Return the prediction of `tools.predict` for an image file, or a `Failure` with the reason.

        Args:
            file: the content of a PNG, JPEG or DICOM file.
            name: of the file.
        """
        return self._thread.submit(self._predict, file, Path(name)).result()

    def saliency_map(self, image: InputImage, name: str) -> NDArray[np.float64]:
        """Return the saliency map of the class `name`, float64 [size, size], 0 or more.

        Raises:
            InputError: if a network has no saliency maps, or memory runs out.
        """
        return self._thread.submit(self._saliency_map, image, CLASSES.index(name)).result()

    def _predict(self, file: bytes, path: Path) -> PredictedImage | Failure:
        try:
            image = decode_image(file, path, self.ensemble.image_size, with_display=True)
            if isinstance(image, Failure):
                return image
            (prediction,) = predict_images([image], self.ensemble)
        except InputError as error:
            return Failure(path, str(error))
        return PredictedImage(image, prediction)

    def _saliency_map(self, image: InputImage, column: int) -> NDArray[np.float64]:
        (saliency,) = self.ensemble.saliency_maps(image.pixels[None], np.zeros(1, np.int64), np.array([column]))
        return saliency


class AppState(NamedTuple):
    """State shared by all visitors."""

    service: InferenceService
    thresholds: dict[str, float]  # for calibrated probabilities, of each class that has one
    metrics: Metrics
    samples: list[SampleImage]


@cache
def load_state() -> AppState:
    """Load the networks of `data/decisions.json`, their metrics and sample images; cached.

    Raises:
        InputError: if a file is missing or broken, or the files do not belong together.
    """
    if not DECISIONS.is_file():
        raise InputError(f"there is no {DECISIONS}; run `make repro`, which takes minutes, or `dvc pull`")
    # With the number of threads of tools.predict, for the same results to the last digit.
    ensemble = load_ensemble([], init_device(os.cpu_count() or 1, deterministic=True))
    if ensemble.decisions is None or ensemble.thresholds is None:
        raise InputError(f"{DECISIONS} was written for other networks than those in {MODELS}; run `dvc repro`")
    thresholds = {name: value for name, value in ensemble.thresholds.items() if value is not None}
    return AppState(InferenceService(ensemble), thresholds, read_metrics(ensemble.decisions), read_samples())


def read_metrics(decisions: Decisions) -> Metrics:
    """Read the metrics of the run that wrote `decisions`.

    Raises:
        InputError: if a file is missing or broken, or from another run.
    """
    metrics = Metrics.read(METRICS)
    evaluated = [metrics.operating_points.classes[name].threshold for name in CLASSES], tuple(metrics.members.members)
    if evaluated != ([nan_to_none(value) for value in decisions.thresholds], decisions.members):
        raise InputError(f"{METRICS} and {DECISIONS} are from different runs; run `dvc repro` or `dvc checkout`")
    return metrics
