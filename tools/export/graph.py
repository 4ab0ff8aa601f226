"""The computation from pixels to calibrated probabilities as one PyTorch module."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration, logit
from cxr.inference.tta import View
from tools.predict.ensemble import Ensemble

MAX_LOGIT = float(logit(np.array(1.0)))  # bound of the logits that calibration uses


class EnsembleModule(nn.Module):
    """Networks, TTA views, averaging, calibration and thresholds in float32.

    Nothing is computed in float64, which many runtimes lack. Averaging in logits keeps the precision that float32
    probabilities near 0 and 1 would lose.
    """

    slope: Tensor
    intercept: Tensor
    thresholds: Tensor | None
    trained: Tensor | None

    def __init__(self, ensemble: Ensemble) -> None:
        """Build the module of an ensemble, without calibration and thresholds if it has no decisions."""
        super().__init__()
        calibration = ensemble.decisions.calibration if ensemble.decisions else _IDENTITY
        self.classifiers = nn.ModuleList(ensemble.classifiers)
        self.views = ensemble.views
        self.register_buffer("slope", torch.from_numpy(calibration.slope).float())
        self.register_buffer("intercept", torch.from_numpy(calibration.intercept).float())
        thresholds = [np.nan if value is None else value for value in (ensemble.thresholds or {}).values()]
        self.register_buffer("thresholds", torch.tensor(thresholds) if thresholds else None)
        trained = torch.tensor([name not in ensemble.untrained for name in CLASSES])
        self.register_buffer("trained", trained if ensemble.untrained else None)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities of `tools.predict` and, with thresholds, the predicted positives.

        Args:
            images: uint8 [images, size, size].

        Returns:
            float32 [images, 15], nan for untrained classes; bool [images, 15].
        """
        pixels = images.unsqueeze(1) / 255
        # All views in one batch, so that the file contains each network once.
        views = torch.cat([_apply_view(view, pixels) for view in self.views])
        logits = [classifier(views).unflatten(0, (len(self.views), -1)) for classifier in self.classifiers]
        probabilities = torch.sigmoid(self.slope * logit_of_mean(torch.cat(logits)) + self.intercept)
        if self.trained is not None:
            probabilities = torch.where(self.trained, probabilities, torch.nan)
        return (probabilities,) if self.thresholds is None else (probabilities, probabilities >= self.thresholds)


def logit_of_mean(logits: Tensor) -> Tensor:
    """Return the logit of the mean of sigmoid(`logits`) over the first dimension, bounded by `MAX_LOGIT`.

    The result is log(Σ p) - log(Σ (1 - p)), in which the number of terms cancels out, with log p = -softplus(-logit)
    and log(1 - p) = -softplus(logit).
    """
    positive, negative = (torch.logsumexp(-functional.softplus(sign * logits), dim=0) for sign in (-1, 1))
    return (positive - negative).clamp(-MAX_LOGIT, MAX_LOGIT)


def _apply_view(view: View, pixels: Tensor) -> Tensor:
    # The batch becomes the channels of one image, so that the sampling grid is a constant for any batch size.
    return view.apply(pixels.transpose(0, 1)).transpose(0, 1)


_IDENTITY = Calibration(np.ones(len(CLASSES)), np.zeros(len(CLASSES)), ("no decisions",) * len(CLASSES))
