"""The input of the plots and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.decisions import Decisions
from cxr.evaluation.external import ExternalMetrics
from cxr.evaluation.schema import Metrics
from cxr.evaluation.summary import Predictions
from cxr.reporting.curves import Curves, compute_curves
from cxr.reporting.examples import Examples


@dataclass(frozen=True)
class Run:
    """The results of one run of the pipeline, or of an external evaluation, of which less is known.

    Attributes:
        test: the test images with their predictions.
        decisions: calibration and thresholds.
        metrics: of the test images.
        examples: test images to show; None without images.
        sample: all images: image, patient, split and the 15 classes.
        official: NIH's official split of the sample, with the columns image and list; empty if there is none.
        members: the description of each member's model file, by the member's name; empty for predictions of a file.
        params: the parameters of evaluate.
        training: `data/curves.csv`: member, epoch, lr, train_loss, val_loss, val_auroc; no rows if it is not known.
        boxes: bounding boxes on test images, as `boxes_of_images` returns them.
    """

    test: Predictions
    decisions: Decisions
    metrics: Metrics | ExternalMetrics
    examples: Examples | None
    sample: pd.DataFrame
    official: pd.DataFrame
    members: Mapping[str, Mapping[str, Any]]
    params: Mapping[str, Any]
    training: pd.DataFrame
    boxes: pd.DataFrame

    @cached_property
    def calibrated(self) -> NDArray[np.float64]:
        """The calibrated probabilities of the test images, [images, 15]."""
        return self.decisions.calibration.apply(self.test.probabilities)

    @cached_property
    def curves(self) -> Curves:
        """ROC, precision-recall and reliability curves."""
        test = self.test
        return compute_curves(test.labels, test.probabilities, self.calibrated, self.metrics.calibration.bins)

    @property
    def note(self) -> str:
        """The images that the metrics are from, for the titles of plots."""
        if self.metrics.classes.synthetic:
            return "synthetic demo images"
        return f"{self.metrics.test.test_images:,} test images"
