"""Thresholds and calibration, fitted on validation: the model of `data/decisions.json`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from cxr.core.errors import InputError
from cxr.core.files import write_json
from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration, fit, prior_shift
from cxr.evaluation.metrics import Labels, PerClass, Scores, label_mask, positives
from cxr.evaluation.params import Threshold
from cxr.evaluation.schema import FileModel, Number, first_problem, nan_to_none, read_json
from cxr.evaluation.thresholds import Rule, choose_thresholds
from cxr.inference.params import TTA

MemberName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+-[0-9]+$")]
_NUMBERS = TypeAdapter(
    Annotated[list[Number], Field(min_length=len(CLASSES), max_length=len(CLASSES))],
    config=ConfigDict(strict=True, allow_inf_nan=False),
)


def _to_array(values: Any) -> NDArray[np.float64]:
    """Return one float64 for each class, nan for None."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.array(_NUMBERS.validate_python(values), np.float64)
    except (ValidationError, OverflowError):
        raise ValueError(f"{len(CLASSES)} numbers are needed") from None


def _to_calibration(values: Any) -> Calibration:
    if isinstance(values, Calibration):
        return values
    try:
        return Calibration(**dict(_CalibrationFields.model_validate(values)))
    except ValidationError as error:
        raise ValueError(": ".join(first_problem(error))) from None


ClassArray = Annotated[
    NDArray[np.float64],
    PlainValidator(_to_array),
    PlainSerializer(lambda array: [nan_to_none(value) for value in array]),
]


class _CalibrationFields(FileModel):
    """The fields of a `Calibration` in the file."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    slope: ClassArray
    intercept: ClassArray
    not_fitted: Annotated[tuple[str, ...], Field(min_length=len(CLASSES), max_length=len(CLASSES))]


CalibrationField = Annotated[Calibration, PlainValidator(_to_calibration), PlainSerializer(Calibration.to_dict)]


class Decisions(FileModel):
    """`data/decisions.json`: how to turn the probabilities of one ensemble into calibrated probabilities and decisions.

    Attributes:
        members: names of the ensemble's members.
        sha256: hexadecimal SHA-256 of each member's model file.
        tta: the test-time augmentation whose probabilities were calibrated.
        classes: the columns of all arrays, in order.
        calibration: maps probabilities to calibrated probabilities.
        rule: the rule by which thresholds were chosen; `fixed` if they were not chosen on validation images.
        thresholds: float64 [15], for probabilities before calibration; nan for a class without labels.
        calibrated_thresholds: float64 [15], the same decisions for calibrated probabilities.
        synthetic: whether the networks were trained on synthetic images.
        prevalence: float64 [15], of the images that the calibration was fitted on; nan if it is not known.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    members: tuple[MemberName, ...]
    sha256: tuple[str, ...]
    tta: TTA
    classes: tuple[str, ...]
    calibration: CalibrationField
    rule: Rule | Literal["fixed"]
    thresholds: ClassArray
    calibrated_thresholds: ClassArray
    synthetic: bool
    prevalence: ClassArray = Field(default_factory=lambda: np.full(len(CLASSES), np.nan))

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != CLASSES:
            raise ValueError(f"the classes are not {', '.join(CLASSES)}")
        return classes

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if not self.members or len(self.members) != len(self.sha256):
            raise ValueError("each member needs a SHA-256")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file that `write` writes.

        Raises:
            InputError: if `path` is missing, is not JSON, or was written by another version of this project.
        """
        return read_json(cls, path)

    def at_prevalence(self, prevalence: Mapping[str, float]) -> Self:
        """Return decisions whose probabilities are calibrated for another prevalence of some classes.

        The logits of these classes are shifted by `prior_shift`, and so are the thresholds: the same images are
        predicted positive.

        Args:
            prevalence: above 0 and below 1, by class.

        Raises:
            InputError: if a class is not calibrated, or its prevalence in validation is not known.
        """
        new = self.prevalence.copy()
        new[[CLASSES.index(name) for name in prevalence]] = list(prevalence.values())
        shift = prior_shift(self.prevalence, new)
        for name in prevalence:
            column = CLASSES.index(name)
            if reason := self.calibration.not_fitted[column] or ("no prevalence" if np.isnan(shift[column]) else ""):
                raise InputError(
                    f"the probabilities of {name} cannot be corrected to a prevalence, since they are not calibrated "
                    f"({reason}); leave this class out"
                )
        intercept = self.calibration.intercept + np.where(new == self.prevalence, 0, np.nan_to_num(shift))
        calibration = replace(self.calibration, intercept=intercept)
        return self.model_copy(
            update={
                "calibration": calibration,
                "calibrated_thresholds": calibration.apply(self.thresholds[None])[0],
                "prevalence": new,
            }
        )

    def write(self, path: Path) -> None:
        """Write to `path` as JSON; `read` restores the same bits."""
        write_json(self.model_dump(mode="json"), path)


def fit_decisions(
    labels: Labels, probabilities: Scores, threshold: Threshold, *, sha256: Mapping[str, str], tta: TTA, synthetic: bool
) -> Decisions:
    """Fit the calibration and choose the thresholds on the validation images.

    Args:
        labels: uint8 [images, 15], 0, 1 or `UNKNOWN`.
        probabilities: float [images, 15], of the ensemble.
        threshold: the rule for thresholds.
        sha256: of each member's model file, by the member's name.
        tta: the test-time augmentation of `probabilities`.
        synthetic: whether the networks were trained on synthetic images.
    """
    thresholds: PerClass = choose_thresholds(threshold.rule, labels, probabilities, threshold.sensitivity)
    calibration = fit(labels, probabilities)
    return Decisions(
        members=tuple(sha256),
        sha256=tuple(sha256.values()),
        tta=tta,
        classes=CLASSES,
        calibration=calibration,
        rule=threshold.rule,
        thresholds=thresholds,
        calibrated_thresholds=calibration.apply(thresholds[None])[0],
        synthetic=synthetic,
        prevalence=_prevalence(labels),
    )


def _prevalence(labels: Labels) -> PerClass:
    """Return the fraction of positives among the images with a label, float64 [classes]; nan without labels."""
    with np.errstate(invalid="ignore"):
        fractions: PerClass = positives(labels) / label_mask(labels).sum(axis=0)
    return fractions
