"""Typed models of the files in `metrics/`, one for each file.

An undefined number, such as the AUROC of a class without positives, is None in Python and null in JSON. The confidence
level of intervals is 95 %.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from cxr.core.errors import InputError
from cxr.core.files import write_json

Number = float | None
Numbers = dict[str, Number]
FileT = TypeVar("FileT", bound=BaseModel)


def nan_to_none(value: float) -> Number:
    """Return `value` as a float, or None if it is nan."""
    return None if np.isnan(value) else float(value)


class FileModel(BaseModel):
    """Base of the models: unknown keys are errors, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

    auroc: dict[str, int | float | None]
    average_precision: Numbers
    brier: BeforeAfter
    calibration_error: BeforeAfter
    f1: Numbers
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
    classes: dict[str, ClassMetrics]


class Intervals(FileModel):
    """`metrics/intervals.json`: by class, and for the means `mean_15` and `mean_14`."""

    bootstrap_samples: int
    patients: int
    auroc: dict[str, Interval]
    average_precision: dict[str, Interval]


class OperatingPoint(FileModel):
    """Rates of one class at its threshold, which applies to probabilities before calibration."""

    threshold: Number
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


class OperatingPoints(FileModel):
    """`metrics/operating_points.json`: rates at the threshold, by class."""

    rule: str
    classes: dict[str, OperatingPoint]


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
    classes: dict[str, ClassCalibration]


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


class EnsembleMetrics(FileModel):
    """Mean AUROC of the ensemble."""

    auroc: dict[str, Interval]


class MemberMetrics(FileModel):
    """Mean AUROC of one member, and the ensemble's less the member's."""

    model: str
    seed: int
    auroc: dict[str, Interval]
    gain: dict[str, Difference]


class MeanAndDeviation(FileModel):
    """Mean and standard deviation over training seeds."""

    mean: Number
    standard_deviation: Number


class ModelMetrics(FileModel):
    """Mean AUROC of one model over its training seeds."""

    seeds: int
    auroc: dict[str, MeanAndDeviation]


class Members(FileModel):
    """`metrics/members.json`: mean AUROC of the ensemble, its members and its models."""

    ensemble: EnsembleMetrics
    members: dict[str, MemberMetrics]
    models: dict[str, ModelMetrics]


LocalisationScores = dict[str, dict[str, Interval]]  # by metric, then by kind of saliency map


class BoxScores(FileModel):
    """Scores of saliency maps on a set of bounding boxes."""

    boxes: int
    images: int
    patients: int
    scores: LocalisationScores


class MeanBoxScores(FileModel):
    """The mean of the scores over classes."""

    classes: int
    scores: LocalisationScores


class Localisation(FileModel):
    """`metrics/localisation.json`; without scores if test has no boxes, or if a network has no saliency maps."""

    peak_fraction: float
    bootstrap_samples: int
    all: BoxScores
    mean: MeanBoxScores
    classes: dict[str, BoxScores]


class SplitSummary(FileModel):
    """Counts of one split."""

    images: int
    patients: int
    positives: dict[str, int]


class DataSummary(FileModel):
    """`metrics/data.json`: name of the data set and counts of each split."""

    name: str
    splits: dict[str, SplitSummary]


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
    operating_points: OperatingPoints
    calibration: CalibrationErrors
    subgroups: Subgroups
    members: Members


class Metrics(PredictionMetrics):
    """All files in `metrics/`: the field NAME is the file NAME.json."""

    localisation: Localisation
    data: DataSummary
    duplicates: Duplicates

    def write(self, folder: Path) -> None:
        """Write each field to `folder/NAME.json`."""
        for name in type(self).model_fields:
            write_json(getattr(self, name).model_dump(mode="json"), folder / f"{name}.json")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files that `write` writes.

        Raises:
            InputError: if a file is missing, is not JSON, or was written by another version of this project.
        """
        return cls.parse({name: read_text(folder / f"{name}.json") for name in cls.model_fields}, folder)

    @classmethod
    def parse(cls, texts: Mapping[str, str], source: object) -> Self:
        """Build from the JSON text of each field; errors name `source`.

        Raises:
            InputError: if a text is missing, is not JSON, or was written by another version of this project.
        """
        return validate(cls, {name: parse_json(text, f"{source}: {name}.json") for name, text in texts.items()}, source)


def read_text(path: Path) -> str:
    """Return the text of the file at `path`.

    Raises:
        InputError: if it is missing or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no {path}; run `dvc repro`") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; run `dvc repro`") from None


def parse_json(text: str, source: object) -> Any:
    """Return the value of a JSON text.

    Raises:
        InputError: naming `source`, if `text` is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON ({error}); run `dvc repro`") from None


def validate(model: type[FileT], values: object, source: object) -> FileT:
    """Build `model` from JSON values.

    Raises:
        InputError: naming `source` and the first field that does not fit.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        location = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"{source} was written by another version of this project ({location}: {problem['msg']}); run `dvc repro`"
        ) from None
