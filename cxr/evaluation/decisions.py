"""What validation decides for any other image: how to calibrate, and from where on a class is called."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation import calibration
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.params import Threshold
from cxr.evaluation.thresholds import choose_thresholds


class Decisions(NamedTuple):
    """What validation chose."""

    calibration: Calibration
    thresholds: NDArray[np.float64]  # of probabilities before calibration, float [15]

    @property
    def calibrated_thresholds(self) -> NDArray[np.float64]:
        """The same decisions, of probabilities after calibration."""
        return self.calibration.apply(self.thresholds[None])[0]


def decide(labels: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: Threshold) -> Decisions:
    """Calibration and thresholds, from images of validation alone.

    Args:
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        probabilities: float [images, 15].
        threshold: the rule for thresholds.
    """
    thresholds = choose_thresholds(threshold.rule, labels, probabilities, threshold.sensitivity)
    return Decisions(calibration.fit(labels, probabilities), thresholds)
