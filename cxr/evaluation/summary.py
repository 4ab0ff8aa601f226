"""The metrics of the test images: everything that follows from labels and predicted probabilities.

All 95 % intervals use the same bootstrap samples (`cxr.evaluation.bootstrap`).
"""

from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.core.labels import CLASSES, UNKNOWN, label_matrix
from cxr.core.tables import SPLITS
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, proportion
from cxr.evaluation.calibration import Calibration, brier_score, expected_calibration_error
from cxr.evaluation.class_values import MEANS, with_ci, with_means
from cxr.evaluation.decisions import Decisions
from cxr.evaluation.ensemble_gain import ensemble_gain
from cxr.evaluation.fairness import group_rates
from cxr.evaluation.metrics import (
    Labels,
    PerClass,
    Scores,
    accuracy,
    auroc,
    average_precision,
    confusion,
    label_mask,
    nanmean,
    positives,
    precision_recall_f1,
)
from cxr.evaluation.prevalence import prevalence_shift
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.schema import (
    BeforeAfter,
    CalibrationErrors,
    ChosenOperatingPoints,
    ClassCalibration,
    Classes,
    ClassMetrics,
    FileT,
    Intervals,
    OperatingPoint,
    Optimism,
    PredictionMetrics,
    SplitSummary,
    Summary,
    ValidationAndTest,
    nan_to_none,
)
from cxr.evaluation.subgroups import count_groups, subgroup_metrics
from cxr.models.members import Member


class Predictions(NamedTuple):
    """Images with their labels and the probabilities that the ensemble predicts, before calibration."""

    table: pd.DataFrame  # image, patient, age, sex and view
    labels: Labels  # uint8 [images, 15]; `UNKNOWN` for classes that a member was not trained on
    by_member: dict[Member, NDArray[np.float64]]  # [images, 15]
    probabilities: NDArray[np.float64]  # [images, 15], the mean of the members

    def subset(self, mask: NDArray[np.bool_]) -> Self:
        """Return the images for which `mask` is true."""
        by_member = {member: values[mask] for member, values in self.by_member.items()}
        return type(self)(self.table[mask], self.labels[mask], by_member, self.probabilities[mask])


def average_members(table: pd.DataFrame, by_member: dict[Member, NDArray[np.float64]]) -> Predictions:
    """Average the members' probabilities.

    Args:
        table: the images, with the columns image, patient, age, sex, view and the 15 classes.
        by_member: probabilities of each member, [images, 15]; nan for classes that it was not trained on.
    """
    probabilities = np.mean(list(by_member.values()), axis=0)
    labels = np.where(np.isnan(probabilities), np.uint8(UNKNOWN), label_matrix(table))
    return Predictions(table, labels, by_member, probabilities)


def evaluate_test_images(
    test: Predictions, decisions: Decisions, samples: BootstrapSamples, calibration_bins: int
) -> PredictionMetrics:
    """Compute all metrics that follow from labels and predicted probabilities.

    Args:
        test: the test images.
        decisions: thresholds and calibration, fitted on validation.
        samples: bootstrap samples of the test images.
        calibration_bins: number of bins of the calibration error.
    """
    labels, probabilities, thresholds = test.labels, test.probabilities, decisions.thresholds
    predicted_positive = probabilities >= thresholds
    areas, precisions = auroc_and_average_precision(labels, probabilities, samples)
    members = ensemble_gain(labels, test.by_member, areas, samples)
    errors = calibration_errors(labels, probabilities, decisions.calibration, calibration_bins)
    classes = class_metrics(labels, probabilities, thresholds)
    return PredictionMetrics(
        test=summary_metrics(classes, errors, len(labels), synthetic=decisions.synthetic),
        classes=Classes(synthetic=decisions.synthetic, classes=_by_class(ClassMetrics, classes)),
        intervals=intervals(areas, precisions, samples),
        operating_points=operating_points(labels, predicted_positive, thresholds, decisions.rule, samples),
        calibration=CalibrationErrors(bins=calibration_bins, classes=_by_class(ClassCalibration, errors)),
        prevalence=prevalence_shift(labels, probabilities, decisions, samples, calibration_bins),
        subgroups=subgroup_metrics(test.table, labels, probabilities, samples),
        fairness=group_rates(test.table, labels, predicted_positive, samples),
        members=members,
    )


def class_metrics(labels: Labels, probabilities: Scores, thresholds: PerClass) -> pd.DataFrame:
    """Return a table of the fields of `ClassMetrics`, a row for each class; nan if undefined.

    `attrs["exact_match"]` is the fraction of images for which all known labels are predicted correctly.
    """
    predicted_positive = probabilities >= thresholds
    counts = confusion(labels, predicted_positive)
    table = pd.DataFrame(
        {
            "images": label_mask(labels).sum(axis=0),
            "positives": positives(labels),
            "auroc": auroc(labels, probabilities),
            "average_precision": average_precision(labels, probabilities),
            "threshold": thresholds,
            "accuracy": accuracy(labels, predicted_positive),
        },
        index=pd.Index(CLASSES, name="class"),
    )
    table[["precision", "recall", "f1"]] = precision_recall_f1(counts)
    table[["true_negatives", "false_positives", "false_negatives", "true_positives"]] = counts
    table.attrs["exact_match"] = float(((labels == predicted_positive) | ~label_mask(labels)).all(axis=1).mean())
    return table


def summary_metrics(classes: pd.DataFrame, errors: pd.DataFrame, images: int, *, synthetic: bool) -> Summary:
    """Return the values that `dvc metrics diff` compares.

    Args:
        classes: the result of `class_metrics`.
        errors: the result of `calibration_errors`.
        images: number of test images.
        synthetic: whether the images are synthetic.
    """
    areas, precisions = classes["auroc"].to_numpy(), classes["average_precision"].to_numpy()
    return Summary(
        auroc={
            **{name: nan_to_none(nanmean(areas[columns])) for name, columns in MEANS.items()},
            **{f"classes_in_{name}": int(np.isfinite(areas[columns]).sum()) for name, columns in MEANS.items()},
            **{str(name): nan_to_none(value) for name, value in classes["auroc"].items()},
        },
        average_precision={name: nan_to_none(nanmean(precisions[columns])) for name, columns in MEANS.items()},
        brier=_mean_before_after(errors, "brier"),
        calibration_error=_mean_before_after(errors, "calibration_error"),
        f1={"mean_15": nan_to_none(nanmean(classes["f1"].to_numpy()))},
        hamming_accuracy=nan_to_none(classes["accuracy"].mean()),
        exact_match=nan_to_none(classes.attrs["exact_match"]),
        test_images=images,
        synthetic_test_images=images if synthetic else 0,
    )


def intervals(areas: BootstrapDistribution, precisions: BootstrapDistribution, samples: BootstrapSamples) -> Intervals:
    """Return AUROC and average precision with intervals, for the means and each class."""
    names = (*MEANS, *CLASSES)
    return Intervals(
        bootstrap_samples=len(samples),
        patients=samples.counts.shape[1],
        auroc=with_ci(names, with_means(areas)),
        average_precision=with_ci(names, with_means(precisions)),
    )


def operating_points(
    labels: Labels, predicted_positive: NDArray[np.bool_], thresholds: PerClass, rule: str, samples: BootstrapSamples
) -> ChosenOperatingPoints:
    """Return threshold, sensitivity, specificity, PPV and NPV of each class.

    Args:
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        predicted_positive: bool [images, 15].
        thresholds: float [15].
        rule: the rule by which thresholds were chosen.
        samples: bootstrap samples of the same images.
    """
    positive, negative, is_labelled = labels == 1, labels == 0, label_mask(labels)
    rates = {
        "sensitivity": proportion(predicted_positive, positive, samples),
        "specificity": proportion(~predicted_positive, negative, samples),
        "ppv": proportion(positive, predicted_positive & is_labelled, samples),
        "npv": proportion(negative, ~predicted_positive & is_labelled, samples),
    }
    by_rate = {rate: with_ci(CLASSES, distribution) for rate, distribution in rates.items()}
    points = {
        name: OperatingPoint(threshold=nan_to_none(threshold), **{rate: by_rate[rate][name] for rate in rates})
        for name, threshold in zip(CLASSES, thresholds, strict=True)
    }
    return ChosenOperatingPoints(rule=rule, classes=points)


def calibration_errors(labels: Labels, probabilities: Scores, calibration: Calibration, bins: int) -> pd.DataFrame:
    """Return a table of the fields of `ClassCalibration`, a row for each class; nan if undefined."""
    after = calibration.apply(probabilities)
    return pd.DataFrame(
        {
            "slope": calibration.slope,
            "intercept": calibration.intercept,
            "not_fitted": calibration.not_fitted,
            "brier_before": brier_score(labels, probabilities),
            "brier_after": brier_score(labels, after),
            "calibration_error_before": expected_calibration_error(labels, probabilities, bins),
            "calibration_error_after": expected_calibration_error(labels, after, bins),
        },
        index=pd.Index(CLASSES, name="class"),
    )


def optimism(val: Predictions, test: Summary, decisions: Decisions, bins: int) -> Optimism:
    """Compare means over the classes on the validation images, which the decisions were fitted to, and on test.

    Args:
        val: the validation images.
        test: the summary metrics of the test images.
        decisions: thresholds and calibration.
        bins: number of bins of the calibration error.
    """
    f1 = nanmean(class_metrics(val.labels, val.probabilities, decisions.thresholds)["f1"].to_numpy())
    errors = calibration_errors(val.labels, val.probabilities, decisions.calibration, bins)
    fitted, brier = (_mean_before_after(errors, name).after for name in ("calibration_error", "brier"))
    return Optimism(
        f1=ValidationAndTest(validation=nan_to_none(f1), test=test.f1["mean_15"]),
        calibration_error=ValidationAndTest(validation=fitted, test=test.calibration_error.after),
        brier=ValidationAndTest(validation=brier, test=test.brier.after),
    )


def split_summaries(sample: pd.DataFrame) -> dict[str, SplitSummary]:
    """Count the images, the patients, and the images with each class, of each split."""
    return {split: _split_summary(sample[sample["split"] == split]) for split in SPLITS}


def _split_summary(part: pd.DataFrame) -> SplitSummary:
    return SplitSummary(
        images=len(part),
        patients=part["patient"].nunique(),
        positives={name: int((part[name] == 1).sum()) for name in CLASSES},
        groups=count_groups(part),
    )


def _mean_before_after(errors: pd.DataFrame, name: str) -> BeforeAfter:
    """Return the mean over the classes with labels."""
    before, after = (nan_to_none(errors[f"{name}_{when}"].mean()) for when in ("before", "after"))
    return BeforeAfter(before=before, after=after)


def _by_class(model: type[FileT], table: pd.DataFrame) -> dict[str, FileT]:
    """Build `model` from each row of a table whose columns are its fields."""
    return {
        str(name): model.model_validate({key: None if pd.isna(value) else value for key, value in row.items()})
        for name, row in table.to_dict("index").items()
    }
