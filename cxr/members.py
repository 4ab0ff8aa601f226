"""The members of the ensemble: one network for each of `models` x `seeds`."""

from pathlib import Path
from typing import NamedTuple

from cxr.params import EvaluateParams, TrainParams
from cxr.paths import model_file


class Member(NamedTuple):
    """One network."""

    model: str  # a name that timm knows
    seed: int  # of its training

    @property
    def file(self) -> Path:
        """Where it lies once it is trained."""
        return model_file(self.model, self.seed)

    def __str__(self) -> str:
        return self.file.stem


def list_members(params: TrainParams | EvaluateParams) -> list[Member]:
    """All of `models` x `seeds`."""
    return [Member(model, seed) for model in params.models for seed in params.seeds]
