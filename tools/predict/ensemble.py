"""The ensemble of trained networks, with its TTA views, calibration and thresholds if there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.core.errors import InputError
from cxr.core.files import sha256
from cxr.core.labels import CLASSES
from cxr.core.paths import DECISIONS, MODELS
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.schema import nan_to_none
from cxr.inference.ensemble import mean_saliency_maps
from cxr.inference.saliency import layer_cam, supported_methods
from cxr.inference.tta import View, predict_probabilities, tta_views
from cxr.models.classifier import Classifier
from cxr.models.device import translate_torch_errors
from cxr.models.image_store import ImageStore
from cxr.models.model_file import load_model


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks whose probabilities are averaged.

    Attributes:
        files: the model files.
        classifiers: the networks, on `device`.
        image_size: side of their input in pixels.
        decisions: thresholds and calibration of exactly these model files; None if there are none.
        untrained: classes without labels in the training images of a network; their probabilities are nan.
        descriptions: those of the model files, in their order.
        device: of the networks.
        prevalence: of the classes whose probabilities are corrected to a stated prevalence.
    """

    files: tuple[Path, ...]
    classifiers: list[Classifier]
    image_size: int
    decisions: Decisions | None
    untrained: tuple[str, ...]
    descriptions: list[dict[str, Any]]
    device: torch.device
    prevalence: Mapping[str, float] = field(default_factory=dict)

    def at_prevalence(self, prevalence: Mapping[str, float]) -> Self:
        """Return the ensemble with calibrated probabilities for another prevalence of some classes.

        Raises:
            InputError: if there is no calibration of these classes.
        """
        if not prevalence:
            return self
        if self.decisions is None:
            raise InputError(
                f"--prevalence corrects calibrated probabilities, and {DECISIONS} has no calibration for these model "
                "files; leave it out"
            )
        return replace(self, decisions=self.decisions.at_prevalence(prevalence), prevalence=dict(prevalence))

    @property
    def views(self) -> list[View]:
        """The TTA views that the thresholds and the calibration belong to; without these, the image alone."""
        return tta_views(self.decisions.tta) if self.decisions else [View()]

    @property
    def is_synthetic(self) -> bool | None:
        """True if the networks were trained on synthetic images, False if not, None if unknown."""
        return self.decisions.synthetic if self.decisions else None

    @property
    def thresholds(self) -> dict[str, float | None] | None:
        """The threshold of each class for calibrated probabilities, None if undefined; None without thresholds."""
        if self.decisions is None:
            return None
        return dict(zip(CLASSES, map(nan_to_none, self.decisions.calibrated_thresholds), strict=True))

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the mean probabilities before calibration, float64 [images, 15], as in `data/predictions.csv`.

        Args:
            images: uint8 [images, image_size, image_size], processed as one batch.

        Raises:
            InputError: if memory runs out.
        """
        store = ImageStore(images, np.arange(len(images)), self.device)
        with translate_torch_errors():
            members = [predict_probabilities(one, store, len(images), self.views) for one in self.classifiers]
        probabilities: NDArray[np.float64] = np.mean(members, axis=0)
        probabilities[:, [CLASSES.index(name) for name in self.untrained]] = np.nan
        return probabilities

    def calibrate(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities of the result of `predict`; the same without a calibration."""
        return self.decisions.calibration.apply(probabilities) if self.decisions else probabilities

    def is_predicted(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return the mask of probabilities at or above the threshold, bool [images, 15]; False without thresholds."""
        return probabilities >= self.decisions.thresholds if self.decisions else np.zeros(probabilities.shape, np.bool_)

    def saliency_maps(
        self, images: NDArray[np.uint8], rows: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        """Return the mean saliency map of class `classes[i]` in image `rows[i]`, float64 [size, size], 0 or more.

        The maps are attention maps if all networks have attention pooling, else LayerCAM; without TTA.

        Raises:
            InputError: if a network has no square feature map, or memory runs out.
        """
        if not len(rows):
            return []
        method = supported_methods(self.classifiers).get("attention", layer_cam)
        with translate_torch_errors():
            store = ImageStore(images, rows, self.device)
            return list(mean_saliency_maps(method, self.classifiers, store, classes, len(images)))


def load_ensemble(files: Sequence[Path], device: torch.device, decisions_file: Path = DECISIONS) -> Ensemble:
    """Load the ensemble of the model `files`; without any, of the members in `data/decisions.json`.

    Args:
        files: the model files.
        device: of the networks.
        decisions_file: thresholds and calibration, which are used if they belong to exactly these files.

    Raises:
        InputError: if a file is missing or broken, the networks have different input sizes, or there are no members.
    """
    decisions = Decisions.read(decisions_file) if decisions_file.is_file() else None
    if not files:
        files = _member_files(decisions)
    loaded = {path: load_model(path) for path in files}
    descriptions = [description for _, description in loaded.values()]
    sizes = [description["image_size"] for description in descriptions]
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{path} {size} px" for path, size in zip(loaded, sizes, strict=True))
        raise InputError(f"the networks of an ensemble need one image size, and these have {listed}")
    is_theirs = decisions is not None and sorted(decisions.sha256) == sorted(map(sha256, loaded))
    classifiers = [classifier.to(device) for classifier, _ in loaded.values()]
    untrained = {name for description in descriptions for name in description.get("untrained", [])}
    return Ensemble(
        tuple(loaded),
        classifiers,
        sizes[0],
        decisions if is_theirs else None,
        tuple(sorted(untrained)),
        descriptions,
        device,
    )


def _member_files(decisions: Decisions | None) -> list[Path]:
    if decisions is None:
        raise InputError(f"there is no {DECISIONS}; run `dvc repro` or `dvc pull`, or give model files (see --help)")
    files = [MODELS / f"{member}.safetensors" for member in decisions.members]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"there is no {', '.join(missing)}, which {DECISIONS} names; `git checkout . && dvc checkout --force` "
            "restores the last commit, `dvc pull` fetches outputs that were pushed, and `dvc repro` trains again"
        )
    return files
