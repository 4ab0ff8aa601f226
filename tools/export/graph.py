"""All that lies between an image's pixels and its calibrated probabilities, as one network."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration, logit
from cxr.inference.tta import View
from tools.predict.ensemble import Ensemble
from tools.predict.output import thresholds_of

FARTHEST = float(logit(np.array(1.0)))  # from 0, of log-odds that are calibrated


class Whole(nn.Module):
    """Networks, their views, the mean over both, calibration and thresholds, in float32.

    No number is in float64, which many runtimes lack: log-odds keep what float32 would lose next to 0 and 1.
    """

    slope: Tensor
    intercept: Tensor
    thresholds: Tensor | None
    learned: Tensor | None

    def __init__(self, ensemble: Ensemble) -> None:
        """Take over an ensemble; one without decisions is neither calibrated nor has it thresholds."""
        super().__init__()
        calibration = ensemble.decisions.calibration if ensemble.decisions else _NONE
        limits = thresholds_of(ensemble)
        self.classifiers = nn.ModuleList(ensemble.classifiers)
        self.views = ensemble.views
        self.register_buffer("slope", torch.from_numpy(calibration.slope).float())
        self.register_buffer("intercept", torch.from_numpy(calibration.intercept).float())
        of_classes = [np.nan if value is None else value for value in limits.values()] if limits else []
        self.register_buffer("thresholds", torch.tensor(of_classes) if limits else None)
        learned = torch.tensor([name not in ensemble.untrained for name in CLASSES])
        self.register_buffer("learned", learned if ensemble.untrained else None)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Probabilities, float32 [images, 15], and where there are thresholds what is called, bool [images, 15].

        Those of `tools.predict` for uint8 `images`, [images, size, size]: calibrated where there are decisions, and nan
        of a class that was not learned.
        """
        pixels = images.unsqueeze(1) / 255
        # All views in one pass, so that the file holds each network once.
        seen = torch.cat([_seen(view, pixels) for view in self.views])
        logits = [classifier(seen).unflatten(0, (len(self.views), -1)) for classifier in self.classifiers]
        probabilities = torch.sigmoid(self.slope * mean_log_odds(torch.cat(logits)) + self.intercept)
        if self.learned is not None:
            probabilities = torch.where(self.learned, probabilities, torch.nan)
        return (probabilities,) if self.thresholds is None else (probabilities, probabilities >= self.thresholds)


def mean_log_odds(logits: Tensor) -> Tensor:
    """The log-odds of the mean of sigmoid(`logits`) over the first dimension, bounded like `logit` of calibration.

    log(Σ p) - log(Σ (1 - p)), whose numbers of terms cancel out, with log p = -softplus(-logit) and
    log(1 - p) = -softplus(logit).
    """
    yes, no = (torch.logsumexp(-functional.softplus(sign * logits), dim=0) for sign in (-1, 1))
    return (yes - no).clamp(-FARTHEST, FARTHEST)


def _seen(view: View, pixels: Tensor) -> Tensor:
    # As one image of many channels: resampled by one grid, a constant, whatever the number of images will be.
    return view.of(pixels.transpose(0, 1)).transpose(0, 1)


_NONE = Calibration(np.ones(len(CLASSES)), np.zeros(len(CLASSES)), ("no decisions",) * len(CLASSES))
