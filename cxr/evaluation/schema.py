"""Typed models of the files in `metrics/`, one for each file.

An undefined number, such as the AUROC of a class without positives, is None in Python and null in JSON. The confidence
level of intervals is 95 %.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, RootModel, ValidationError

from cxr.core.errors import InputError, format_names
from cxr.core.files import read_utf8, write_json
from cxr.core.labels import CLASSES

Number = float | None
FileT = TypeVar("FileT", bound=BaseModel)
ValueT = TypeVar("ValueT")

# The means over the 15 classes, and over the 14 without No Finding.
MEAN_NAMES = ("mean_15", "mean_14")


def _having(names: Iterable[str]) -> AfterValidator:
    """Return the check that a dictionary has the keys `names` and no others."""
    required = set(names)

    def check(values: dict[str, ValueT]) -> dict[str, ValueT]:
        if different := sorted(values.keys() ^ required):
            raise ValueError(f"missing or unknown: {format_names(different)}")
        return values

    return AfterValidator(check)


ByClass = Annotated[dict[str, ValueT], _having(CLASSES)]
ByMean = Annotated[dict[str, ValueT], _having(MEAN_NAMES)]
ByMeanAndClass = Annotated[dict[str, ValueT], _having((*MEAN_NAMES, *CLASSES))]


def nan_to_none(value: float) -> Number:
    """Return `value` as a float, or None if it is nan."""
    return None if np.isnan(value) else float(value)


class FileModel(BaseModel):
    """Base of the models: unknown keys and numbers that are not finite are errors, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(FileModel):
    """A value with its confidence interval."""

    value: Number
    low: Number
    high: Number


class Difference(Interval):
    """A difference with its confidence interval and two-sided p-value."""

    p_value: Number


class BeforeAfter(FileModel):
    """A metric before and after calibration."""

    before: Number
    after: Number


class Summary(FileModel):
    """`metrics/test.json`: the summary metrics that `dvc metrics diff` compares."""

    auroc: Annotated[
        dict[str, int | float | None], _having((*MEAN_NAMES, *(f"classes_in_{name}" for name in MEAN_NAMES), *CLASSES))
    ]
    average_precision: ByMean[Number]
    brier: BeforeAfter
    calibration_error: BeforeAfter
    f1: Annotated[dict[str, Number], _having(["mean_15"])]
    hamming_accuracy: Number
    exact_match: Number
    test_images: int
    synthetic_test_images: int


class ClassMetrics(FileModel):
    """The metrics of one class at its threshold."""

    images: int
    positives: int
    auroc: Number
    average_precision: Number
    threshold: Number
    accuracy: Number
    precision: Number
    recall: Number
    f1: Number
    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int


class Classes(FileModel):
    """`metrics/classes.json`: metrics by class."""

    synthetic: bool
    classes: ByClass[ClassMetrics]


class Intervals(FileModel):
    """`metrics/intervals.json`: by class, and for the means `mean_15` and `mean_14`."""

    bootstrap_samples: int
    patients: int
    auroc: ByMeanAndClass[Interval]
    average_precision: ByMeanAndClass[Interval]


class OperatingPoint(FileModel):
    """Rates of one class at its threshold, which applies to probabilities before calibration."""

    threshold: Number
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


class ChosenOperatingPoints(FileModel):
    """`metrics/operating_points.json`: rates at the threshold, by class."""

    rule: str
    classes: ByClass[OperatingPoint]


class ClassCalibration(FileModel):
    """Calibration of one class. `not_fitted` is the reason if it is not fitted, else ''."""

    slope: float
    intercept: float
    not_fitted: str
    brier_before: Number
    brier_after: Number
    calibration_error_before: Number
    calibration_error_after: Number


class CalibrationErrors(FileModel):
    """`metrics/calibration.json`: calibration parameters and errors, by class."""

    bins: int
    classes: ByClass[ClassCalibration]


class GroupMetrics(FileModel):
    """A group of patients. `auroc` has `mean`, over `classes_in_mean` classes, if the group has any of these."""

    images: int
    classes_in_mean: int
    positives: dict[str, int]
    auroc: dict[str, Interval]


class Gap(Interval):
    """The difference of AUROC between the groups `highest` and `lowest`."""

    highest: str | None
    lowest: str | None


class AttributeMetrics(FileModel):
    """The groups of one attribute, and the largest gap between two of them for each class and for the mean."""

    groups: dict[str, GroupMetrics]
    largest_gap: dict[str, Gap]


class Subgroups(RootModel[dict[str, AttributeMetrics]]):
    """`metrics/subgroups.json`: by attribute (sex, age, view position)."""

    model_config = ConfigDict(frozen=True)


class ClassPrevalence(FileModel):
    """Prevalence of one class, and what its shift does to the calibrated probabilities.

    Attributes:
        validation: prevalence of the images that the calibration was fitted on.
        test: prevalence of the test images; the baseline of average precision.
        ratio: test divided by validation.
        mean_predicted: mean calibrated probability.
        calibration_intercept: 0 is best; above 0, the probabilities are too low.
        calibration_slope: 1 is best; below 1, the probabilities are too extreme.
        calibration_error: expected calibration error of the calibrated probabilities.
        calibration_error_if_calibrated: its mean if they were perfectly calibrated, at this number of images.
        calibration_error_corrected: after correction to the prevalence of test.
        ppv: at the threshold, by prevalence.
        npv: at the threshold, by prevalence.
    """

    validation: Number
    test: Interval
    ratio: Number
    mean_predicted: Number
    calibration_intercept: Interval
    calibration_slope: Interval
    calibration_error: Number
    calibration_error_if_calibrated: Number
    calibration_error_corrected: Number
    ppv: dict[str, Interval]
    npv: dict[str, Interval]


class PrevalenceShift(FileModel):
    """`metrics/prevalence.json`: prevalence in validation and test, by class.

    `shifted` are the classes whose ratio is above `max_ratio` or below its reciprocal, by more than the interval.
    """

    bins: int
    max_ratio: float
    shifted: list[str]
    classes: ByClass[ClassPrevalence]


class GroupRate(Interval):
    """A rate of one group, and its difference from that of the other images (`rest`)."""

    rest: Number
    difference: Number
    difference_low: Number
    difference_high: Number
    p_value: Number
    p_holm: Number


class GroupRates(FileModel):
    """Rates at the threshold of one group, by class; without the classes with too few images."""

    images: int
    true_positive_rate: dict[str, GroupRate]
    false_positive_rate: dict[str, GroupRate]


class Fairness(FileModel):
    """`metrics/fairness.json`: rates by attribute and group.

    `underdiagnosis` is the false positive rate of No Finding in the intersections of two attributes.
    """

    min_images: int
    groups: dict[str, dict[str, GroupRates]]
    underdiagnosis: dict[str, dict[str, GroupRate]]


class ReaderRates(FileModel):
    """Sensitivity and specificity against the radiologists' agreed label."""

    images: int
    sensitivity: Interval
    specificity: Interval


class ExpertFinding(FileModel):
    """One finding of a table of radiologists' labels, on the test images that it lists.

    Attributes:
        classes: the classes that the finding stands for.
        images: with a label of the radiologists and of the data set.
        patients: of these images.
        positives: according to the radiologists.
        label_positives: according to the data set's labels.
        auroc: against the radiologists' labels.
        auroc_against_labels: against the data set's labels of the same images.
        auroc_difference: the first less the second.
        network: rates at the thresholds.
        labels: rates of the data set's labels, taken as predictions.
        label_agreement: fraction of the images with equal labels.
        readers: rates of each radiologist, who also contributed to the agreed label.
    """

    classes: list[str]
    images: int
    patients: int
    positives: int
    label_positives: int
    auroc: Interval
    auroc_against_labels: Interval
    auroc_difference: Difference
    network: ReaderRates
    labels: ReaderRates
    label_agreement: Interval
    readers: dict[str, ReaderRates]


class ExpertTable(FileModel):
    """One table of radiologists' labels; `ignored` counts its images that are not in test."""

    images: int
    ignored: int
    findings: dict[str, ExpertFinding]


class Experts(FileModel):
    """`metrics/experts.json`: by table; empty if the data set has no radiologists' labels."""

    tables: dict[str, ExpertTable]


class ValidationAndTest(FileModel):
    """A metric on the images that the decisions were fitted to, and on test."""

    validation: Number
    test: Number


class Optimism(FileModel):
    """`metrics/optimism.json`: means over the classes, at the thresholds and after calibration."""

    f1: ValidationAndTest
    calibration_error: ValidationAndTest
    brier: ValidationAndTest


class EnsembleMetrics(FileModel):
    """Mean AUROC of the ensemble."""

    auroc: ByMean[Interval]


class MemberMetrics(FileModel):
    """Mean AUROC of one member, and the ensemble's less the member's."""

    model: str
    seed: int
    auroc: ByMean[Interval]
    gain: ByMean[Difference]


class MeanAndDeviation(FileModel):
    """Mean and standard deviation over training seeds."""

    mean: Number
    standard_deviation: Number


class ModelMetrics(FileModel):
    """Mean AUROC of one model over its training seeds."""

    seeds: int
    auroc: ByMean[MeanAndDeviation]


class Members(FileModel):
    """`metrics/members.json`: mean AUROC of the ensemble, its members and its models."""

    ensemble: EnsembleMetrics
    members: dict[str, MemberMetrics]
    models: dict[str, ModelMetrics]


LocalisationScores = dict[str, dict[str, Interval]]  # by metric, then by kind of saliency map


class BoxScores(FileModel):
    """Scores of saliency maps on a set of bounding boxes.

    `chance` is the mean area of the boxes as a fraction of the image: the expected pointing game and energy of a map
    that is independent of the boxes and uniform over the image.
    """

    boxes: int
    images: int
    patients: int
    chance: Number
    scores: LocalisationScores


class MeanBoxScores(FileModel):
    """The mean of the scores over classes."""

    classes: int
    chance: Number
    scores: LocalisationScores


class Localisation(FileModel):
    """`metrics/localisation.json`; without scores if test has no boxes, or if a network has no saliency maps."""

    peak_fraction: float
    bootstrap_samples: int
    all: BoxScores
    mean: MeanBoxScores
    classes: dict[str, BoxScores]


class SplitSummary(FileModel):
    """Counts of one split. `groups` are the images by attribute (sex, age, view position) and group."""

    images: int
    patients: int
    positives: dict[str, int]
    groups: dict[str, dict[str, int]]


class Counts(FileModel):
    """Number of images and of their patients."""

    images: int
    patients: int


class DataSummary(FileModel):
    """`metrics/data.json`: name of the data set, and counts of its table, if there is one, and of each split."""

    name: str
    table: Counts | None = None
    splits: Annotated[dict[str, SplitSummary], _having(("train", "val", "test"))]


class DuplicatePair(FileModel):
    """Two images in different splits that look alike."""

    image_a: str
    split_a: str
    image_b: str
    split_b: str
    distance: int
    correlation: float


class Duplicates(FileModel):
    """`metrics/duplicates.json`: probable duplicates in different splits."""

    pairs: list[DuplicatePair]


class PredictionMetrics(FileModel):
    """The metrics that follow from labels and predicted probabilities."""

    test: Summary
    classes: Classes
    intervals: Intervals
    operating_points: ChosenOperatingPoints
    calibration: CalibrationErrors
    prevalence: PrevalenceShift
    subgroups: Subgroups
    fairness: Fairness
    members: Members

    def write(self, folder: Path) -> None:
        """Write each field that is not None to `folder/NAME.json`."""
        for name, value in self:
            if value is not None:
                write_json(value.model_dump(mode="json"), folder / f"{name}.json")


class Metrics(PredictionMetrics):
    """All files in `metrics/`: the field NAME is the file NAME.json."""

    localisation: Localisation
    data: DataSummary
    duplicates: Duplicates
    experts: Experts
    optimism: Optimism

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files that `write` writes.

        Raises:
            InputError: if a file is missing, is not JSON, or was written by another version of this project.
        """
        models: dict[str, Any] = {name: field.annotation for name, field in cls.model_fields.items()}
        return cls(**{name: read_json(model, folder / f"{name}.json") for name, model in models.items()})


def read_json(model: type[FileT], path: Path) -> FileT:
    """Build `model` from the JSON file at `path`.

    Raises:
        InputError: naming the file and the first field that does not fit, if the file is missing, is not JSON, or was
            written by another version of this project.
    """
    try:
        return model.model_validate_json(read_utf8(path), strict=True)
    except FileNotFoundError:
        raise InputError(f"there is no {path}; run `dvc repro`") from None
    except InputError as error:
        raise InputError(f"{error}, or run `dvc repro`") from None
    except ValidationError as error:
        location, message = first_problem(error)
        if error.errors()[0]["type"] == "json_invalid":
            raise InputError(f"{path} is not JSON ({message}); run `dvc repro`") from None
        raise InputError(
            f"{path} was written by another version of this project ({location}: {message}); run `dvc repro`"
        ) from None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the location, such as auroc.Mass, and the message of the first problem."""
    problem = error.errors()[0]
    return ".".join(map(str, problem["loc"])) or "the whole", problem["msg"].removeprefix("Value error, ")
