"""Parameters of the stages sample and split."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxr.core.params import Fraction, RawDir, Seed, Strict

DataSeed = Annotated[Seed, Field(description="seed of the stages sample and split")]


class Sample(Strict):
    """Selection of the images."""

    size: int = Field(ge=1, description="number of distinct images to sample; all images if there are fewer")
    exclude: list[str] = Field(description="names of images to leave out")


class CheXpert(Strict):
    """Reading of the labels of CheXpert; ignored for data in the layout of NIH."""

    uncertain: Literal["unknown", "negative", "positive"] = Field(
        description="value of uncertain labels (-1); unknown labels are excluded from the loss and from all metrics"
    )
    unmentioned: Literal["unknown", "negative"] = Field(description="value of empty labels")
    lateral: bool = Field(description="include lateral views")


class Split(Strict):
    """Assignment of the patients to train, val and test."""

    method: Literal["patient", "official"] = Field(
        description="stratified random split by patient, or the official split of the data set"
    )
    train: Fraction = Field(description="fraction of images in train; ignored by the official split")
    val: Fraction = Field(description="fraction of images in val; with the official split, of the train_val images")
    test: Fraction = Field(description="fraction of images in test; ignored by the official split")

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test must add up to 1, but add up to {total:g}")
        return self


class SampleParams(Strict):
    """Parameters of the stage sample."""

    raw_dir: RawDir
    data_seed: DataSeed
    sample: Sample
    chexpert: CheXpert


class SplitParams(Strict):
    """Parameters of the stage split."""

    data_seed: DataSeed
    split: Split
