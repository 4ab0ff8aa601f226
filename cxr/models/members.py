"""The members of the ensemble: one network for each of `models` x `seeds`."""

from pathlib import Path
from typing import NamedTuple

from cxr.core.paths import model_file


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


def list_members(models: list[str], seeds: list[int]) -> list[Member]:
    """The members of the ensemble, one for each model and seed."""
    return [Member(model, seed) for model in models for seed in seeds]
