"""External evaluation: predictions on data that no threshold and no calibration was chosen on.

The decisions of the original validation, or fixed ones, are applied as they are. Beside them is what these data would
have chosen, which is optimistic, since it is measured on the images that it is chosen on.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES
from cxr.evaluation.bootstrap import BootstrapSamples
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.params import Threshold
from cxr.evaluation.schema import (
    ByClass,
    DataSummary,
    Experts,
    FileModel,
    Localisation,
    Number,
    PredictionMetrics,
    nan_to_none,
)
from cxr.evaluation.summary import (
    Predictions,
    calibration_errors,
    class_metrics,
    evaluate_test_images,
    split_summaries,
)
from cxr.evaluation.thresholds import DEFAULT_THRESHOLD
from cxr.inference.params import TTA

NO_TTA = TTA(hflip=False, translate=0, scale=0, five_crop=0)


class ExternalClass(FileModel):
    """The decisions of one class, and those that these data would have chosen (`here`, optimistic)."""

    threshold: Number
    threshold_here: Number
    f1: Number
    f1_here: Number
    sensitivity_here: Number
    specificity_here: Number
    calibration_error: Number
    calibration_error_here: Number


class External(FileModel):
    """`metrics/external.json`: what was measured on what, and how well the decisions fit these data.

    Attributes:
        predictions: what was measured: a file of predictions, or model files.
        labels: the folder or file of the labels, by its name.
        decisions: `carried over` from the original validation, or `fixed` at a threshold, without calibration.
        rule_here: the rule by which these data would have chosen the thresholds.
        leak: what is known about training on these patients.
        notes: what was left out or assumed.
        classes: by class.
    """

    predictions: list[str]
    labels: str
    decisions: Literal["carried over", "fixed"]
    rule_here: str
    leak: str
    notes: list[str]
    classes: ByClass[ExternalClass]


class ExternalMetrics(PredictionMetrics):
    """The files of an external evaluation: the field NAME is the file NAME.json; None if it is not known."""

    data: DataSummary
    external: External
    experts: Experts
    localisation: Localisation | None = None


def fixed_decisions(members: Iterable[str], threshold: float = DEFAULT_THRESHOLD, *, synthetic: bool) -> Decisions:
    """Return decisions that are not fitted to any image: one threshold for all classes, and no calibration.

    Args:
        members: names of the members, such as `resnet10t-1`.
        threshold: of all classes.
        synthetic: whether the images are synthetic.
    """
    names, count = tuple(members), len(CLASSES)
    thresholds = np.full(count, threshold, np.float64)
    return Decisions(
        members=names,
        sha256=("",) * len(names),
        tta=NO_TTA,
        classes=CLASSES,
        calibration=Calibration(np.ones(count), np.zeros(count), ("no calibration is known",) * count),
        rule="fixed",
        thresholds=thresholds,
        calibrated_thresholds=thresholds,
        synthetic=synthetic,
    )


def evaluate_external(
    test: Predictions, decisions: Decisions, choice: Threshold, samples: BootstrapSamples, calibration_bins: int
) -> tuple[PredictionMetrics, dict[str, ExternalClass]]:
    """Return the metrics of the stage evaluate with `decisions`, and the comparison with what `choice` chooses here.

    Args:
        test: the images with their predictions.
        decisions: thresholds and calibration, not fitted to these images.
        choice: the rule for the thresholds that these images would have chosen.
        samples: bootstrap samples of the images.
        calibration_bins: number of bins of the calibration error.
    """
    metrics = evaluate_test_images(test, decisions, samples, calibration_bins)
    return metrics, _compare_with_here(test, decisions, choice, calibration_bins)


def count_images(name: str, table: pd.DataFrame) -> DataSummary:
    """Return the counts of `table`, all of whose images are in test."""
    return DataSummary(name=name, splits=split_summaries(table.assign(split="test")))


def _compare_with_here(
    test: Predictions, decisions: Decisions, choice: Threshold, calibration_bins: int
) -> dict[str, ExternalClass]:
    labels, probabilities = test.labels, test.probabilities
    hashes = dict(zip(decisions.members, decisions.sha256, strict=True))
    here = fit_decisions(labels, probabilities, choice, sha256=hashes, tta=decisions.tta, synthetic=decisions.synthetic)
    before, after = (class_metrics(labels, probabilities, one.thresholds) for one in (decisions, here))
    errors, errors_here = (
        calibration_errors(labels, probabilities, one.calibration, calibration_bins)["calibration_error_after"]
        for one in (decisions, here)
    )
    negatives = after["true_negatives"] + after["false_positives"]
    table = pd.DataFrame(
        {
            "threshold": before["threshold"],
            "threshold_here": after["threshold"],
            "f1": before["f1"],
            "f1_here": after["f1"],
            "sensitivity_here": after["recall"],
            "specificity_here": after["true_negatives"] / negatives.where(negatives > 0),
            "calibration_error": errors,
            "calibration_error_here": errors_here,
        }
    )
    return {
        str(name): ExternalClass(**{str(key): nan_to_none(value) for key, value in row.items()})
        for name, row in table.to_dict("index").items()
    }
