"""The networks that are asked, and what goes with them: views, calibration and thresholds, where they are known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from cxr.core.errors import InputError
from cxr.core.files import sha256
from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS, METRICS, MODELS
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.summary import nan_to_none
from cxr.inference.ensemble import mean_saliency_maps
from cxr.inference.params import TTA
from cxr.inference.saliency import layer_cam, supported_methods
from cxr.inference.tta import View, predict_probabilities, tta_views
from cxr.models.classifier import Classifier
from cxr.models.device import translate_torch_errors
from cxr.models.image_store import ImageStore
from cxr.models.model_file import load_model


class Decisions(NamedTuple):
    """What evaluate wrote for an ensemble."""

    members: tuple[str, ...]
    sha256: tuple[str, ...]  # of each member's file
    tta: TTA
    calibration: Calibration
    thresholds: NDArray[np.float64]  # of probabilities before calibration, [15]
    rule: str  # that chose them


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks that are averaged.

    Attributes:
        files: where each came from.
        classifiers: on `device`.
        image_size: of the images that all of them see, pixels.
        decisions: made for exactly these networks; None where none were.
        untrained: classes that a network has not learned, for want of labels: their probabilities are nan.
        device: where they compute.
        is_synthetic: whether the images of the run were drawn ones; None where that is not known.
    """

    files: tuple[Path, ...]
    classifiers: list[Classifier]
    image_size: int
    decisions: Decisions | None
    untrained: tuple[str, ...]
    device: torch.device
    is_synthetic: bool | None

    @property
    def views(self) -> list[View]:
        """Those of evaluate, whose probabilities were calibrated; the image alone where there are none."""
        return tta_views(self.decisions.tta) if self.decisions else [View()]

    def predict(self, squares: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The mean probability of uint8 [images, size, size] before calibration, float64 [images, 15], as evaluate's.

        All images are one batch; InputError where memory is too short for it.
        """
        pixels = self._pixels(squares, np.arange(len(squares)))
        with translate_torch_errors():
            each = [predict_probabilities(one, pixels, len(squares), self.views) for one in self.classifiers]
        probabilities: NDArray[np.float64] = np.mean(each, axis=0)
        probabilities[:, [CLASSES.index(name) for name in self.untrained]] = np.nan
        return probabilities

    def maps(
        self, squares: NDArray[np.uint8], rows: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        """Where the networks see class `classes[i]` in image `rows[i]`, float64 [size, size] each, 0 or more.

        The mean of the networks' own attention where all have one, else of LayerCAM; of the image itself, no views.

        Raises:
            InputError: where a network has no square grid of features, or memory is short.
        """
        if not len(rows):
            return []
        method = supported_methods(self.classifiers).get("attention", layer_cam)
        with translate_torch_errors():
            pixels = self._pixels(squares, rows)
            return list(mean_saliency_maps(method, self.classifiers, pixels, classes, len(squares)))

    def _pixels(self, squares: NDArray[np.uint8], rows: NDArray[np.int64]) -> ImageStore:
        return ImageStore(squares, rows, self.device)


def load_ensemble(files: Sequence[Path], device: torch.device) -> Ensemble:
    """The ensemble of the model `files`; with none, of the members that `data/decisions.json` names.

    Raises:
        InputError: where a file is missing or broken, the networks see images of different sizes, or none is named.
    """
    decisions = read_decisions(DECISIONS) if DECISIONS.is_file() else None
    if not files and decisions is None:
        raise InputError(f"there is no {DECISIONS}; run `dvc repro` or `dvc pull`, or name model files (--help)")
    if not files and decisions:
        files = [MODELS / f"{member}.safetensors" for member in decisions.members]
        _check_there(files)
    loaded = {path: load_model(path) for path in files}
    sizes = {path: about["image_size"] for path, (_, about) in loaded.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{path} {size} px" for path, size in sizes.items())
        raise InputError(f"one ensemble sees images of one size, and these were trained at {told}")
    ours = decisions if decisions and sorted(decisions.sha256) == sorted(map(sha256, loaded)) else None
    classifiers = [classifier.to(device) for classifier, _ in loaded.values()]
    size, is_synthetic = next(iter(sizes.values())), _are_images_synthetic(ours)
    untrained = {name for _, about in loaded.values() for name in about.get("untrained", [])}
    return Ensemble(tuple(loaded), classifiers, size, ours, tuple(sorted(untrained)), device, is_synthetic)


def _check_there(files: Sequence[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"there is no {', '.join(missing)}, which {DECISIONS} is for; `git checkout . && dvc checkout` goes back "
            "to the last commit, `dvc pull` fetches what was pushed, and `dvc repro` makes it again"
        )


def _are_images_synthetic(decisions: Decisions | None) -> bool | None:
    """Whether the images of the run were drawn ones, as its metrics say; None where there are none of just this run."""
    path = METRICS / "classes.json"
    if decisions is None or not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    # Thresholds have every digit: no two runs share them by chance.
    measured = [content["classes"][name]["threshold"] for name in CLASSES]
    return bool(content["synthetic"]) if measured == [nan_to_none(value) for value in decisions.thresholds] else None


def read_decisions(path: Path) -> Decisions:
    """Read what evaluate wrote to `path`; InputError where it is another file, or of an older version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["classes"] != list(CLASSES):
            raise ValueError("classes: others than this version's")
        return Decisions(
            tuple(content["members"]),
            tuple(content["sha256"]),
            TTA.model_validate(content["tta"]),
            Calibration.from_dict(content["calibration"]),
            np.array(content["thresholds"], np.float64),
            content["rule"],
        )
    except KeyError as error:
        raise InputError(f"{path} has no {error}: it is of an older version; run `dvc repro`") from None
    except (ValueError, TypeError, ValidationError) as error:
        raise InputError(f"{path} is not what evaluate writes: {error}; run `dvc repro`") from None
