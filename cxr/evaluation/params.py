"""Parameters of the stage evaluate."""

from typing import Literal

from pydantic import Field

from cxr.core.params import RawDir, Strict
from cxr.inference.params import TTA
from cxr.models.params import BatchSize, Deterministic, Models, Seeds, Threads


class Threshold(Strict):
    """Rule for choosing the threshold of each class on the validation images."""

    rule: Literal["f1", "youden", "sensitivity"] = Field(
        description="maximum F1, maximum Youden index, or the highest threshold with the required sensitivity"
    )
    sensitivity: float = Field(gt=0, le=1, description="required sensitivity; used by the rule sensitivity only")


class EvaluateParams(Strict):
    """Parameters of the stage evaluate."""

    raw_dir: RawDir
    models: Models
    seeds: Seeds
    batch_size: BatchSize
    tta: TTA
    threshold: Threshold
    calibration_bins: int = Field(
        ge=2, le=1000, description="bins of the calibration error and of the reliability diagrams"
    )
    bootstrap_samples: int = Field(
        ge=100, le=100_000, description="bootstrap samples of patients for the confidence intervals"
    )
    threads: Threads
    deterministic: Deterministic
