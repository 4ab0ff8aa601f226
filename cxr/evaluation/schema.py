"""The files of `metrics/`: one typed model for each, which its writer and every reader share.

A number that is undefined, such as the AUROC of a class without positives, is None here and null in JSON. Confidence
intervals have a level of 95 %.
"""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from cxr.core.errors import InputError
from cxr.core.files import write_json

Number = float | None
Counts = dict[str, int]
PerClass = dict[str, Number]


class Record(BaseModel):
    """A group of values in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Record):
    """A value with its confidence interval."""

    value: Number
    low: Number
    high: Number


class Difference(Interval):
    """A difference with its confidence interval and two-sided p-value."""

    p_value: Number


class BeforeAfter(Record):
    """A metric before and after calibration."""

    before: Number
    after: Number


class Summary(Record):
    """`metrics/test.json`: what `dvc metrics diff` compares."""

    auroc: dict[str, int | float | None]
    average_precision: PerClass
    brier: BeforeAfter
    calibration_error: BeforeAfter
    f1: PerClass
    hamming_accuracy: Number
    exact_match: Number
    test_images: int
    synthetic_test_images: int


class ClassMetrics(Record):
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


class Classes(Record):
    """`metrics/classes.json`."""

    synthetic: bool
    classes: dict[str, ClassMetrics]


class Intervals(Record):
    """`metrics/intervals.json`: by class, and for the means `mean_15` and `mean_14`."""

    bootstrap_samples: int
    patients: int
    auroc: dict[str, Interval]
    average_precision: dict[str, Interval]


class OperatingPoint(Record):
    """Rates of one class at its threshold, which applies to probabilities before calibration."""

    threshold: Number
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


class OperatingPoints(Record):
    """`metrics/operating_points.json`."""

    rule: str
    classes: dict[str, OperatingPoint]


class ClassCalibration(Record):
    """Calibration of one class; `not_fitted` says why its probabilities were kept, and is empty if it was fitted."""

    slope: float
    intercept: float
    not_fitted: str
    brier_before: Number
    brier_after: Number
    calibration_error_before: Number
    calibration_error_after: Number


class CalibrationErrors(Record):
    """`metrics/calibration.json`."""

    bins: int
    classes: dict[str, ClassCalibration]


class GroupMetrics(Record):
    """A group of patients. `auroc` has `mean`, over `classes_in_mean` classes, if the group has any of these."""

    images: int
    classes_in_mean: int
    positives: Counts
    auroc: dict[str, Interval]


class Gap(Interval):
    """The difference of AUROC between the groups `highest` and `lowest`."""

    highest: str | None
    lowest: str | None


class AttributeMetrics(Record):
    """The groups of one attribute, and the largest gap between two of them for each class and for the mean."""

    groups: dict[str, GroupMetrics]
    largest_gap: dict[str, Gap]


class Subgroups(RootModel[dict[str, AttributeMetrics]]):
    """`metrics/subgroups.json`: by attribute (sex, age, view)."""

    model_config = ConfigDict(frozen=True)


class EnsembleMetrics(Record):
    """Mean AUROC of the ensemble."""

    auroc: dict[str, Interval]


class MemberMetrics(Record):
    """Mean AUROC of one member, and the ensemble's less the member's."""

    model: str
    seed: int
    auroc: dict[str, Interval]
    gain: dict[str, Difference]


class MeanAndDeviation(Record):
    """Mean and standard deviation over training seeds."""

    mean: Number
    standard_deviation: Number


class ModelMetrics(Record):
    """Mean AUROC of one model over its training seeds."""

    seeds: int
    auroc: dict[str, MeanAndDeviation]


class Members(Record):
    """`metrics/members.json`."""

    ensemble: EnsembleMetrics
    members: dict[str, MemberMetrics]
    models: dict[str, ModelMetrics]


Scores = dict[str, dict[str, Interval]]  # by measure, then by kind of saliency map


class BoxScores(Record):
    """Scores of saliency maps on a set of bounding boxes."""

    boxes: int
    images: int
    patients: int
    scores: Scores


class MeanBoxScores(Record):
    """The mean of the scores over classes."""

    classes: int
    scores: Scores


class Localisation(Record):
    """`metrics/localisation.json`: no scores if test has no boxes, or if a network has no saliency maps."""

    peak_fraction: float
    bootstrap_samples: int
    all: BoxScores
    mean: MeanBoxScores
    classes: dict[str, BoxScores]


class SplitSummary(Record):
    """Counts of one split."""

    images: int
    patients: int
    positives: Counts


class DataSummary(Record):
    """`metrics/data.json`."""

    name: str
    splits: dict[str, SplitSummary]


class DuplicatePair(Record):
    """Two images in different splits that look alike."""

    image_a: str
    split_a: str
    image_b: str
    split_b: str
    distance: int
    correlation: float


class Duplicates(Record):
    """`metrics/duplicates.json`."""

    pairs: list[DuplicatePair]


class Metrics(Record):
    """All files of `metrics/`, a field each."""

    test: Summary
    classes: Classes
    intervals: Intervals
    operating_points: OperatingPoints
    calibration: CalibrationErrors
    subgroups: Subgroups
    members: Members
    localisation: Localisation
    data: DataSummary
    duplicates: Duplicates

    def write(self, folder: Path) -> None:
        """Write each field to `folder/FIELD.json`."""
        for name in type(self).model_fields:
            write_json(getattr(self, name).model_dump(mode="json"), folder / f"{name}.json")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            InputError: if a file is missing, or is not one that `write` writes.
        """
        texts = {}
        for name in cls.model_fields:
            path = folder / f"{name}.json"
            try:
                texts[name] = path.read_text(encoding="utf-8")
            except (FileNotFoundError, UnicodeDecodeError):
                raise InputError(f"there is no readable {path}; run `dvc repro`") from None
        return cls.parse(texts, folder)

    @classmethod
    def parse(cls, texts: dict[str, str], source: object) -> Self:
        """Build from the JSON text of each field.

        Raises:
            InputError: naming `source`, if a text is not one that `write` writes.
        """
        values = {name: json.loads(texts[name]) for name in cls.model_fields}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            location = ".".join(map(str, problem["loc"]))
            raise InputError(
                f"{source} was written by another version of this project ({location}: {problem['msg']}); run `dvc repro`"
            ) from None
