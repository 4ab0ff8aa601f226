"""Members of the ensemble: one network for each combination of `models` and `seeds`."""

from pathlib import Path
from typing import NamedTuple

from cxr.core.paths import model_file


class Member(NamedTuple):
    """A network of the ensemble."""

    model: str  # name in timm
    seed: int  # training seed

    @property
    def file(self) -> Path:
        """Path of the trained network."""
        return model_file(self.model, self.seed)

    def __str__(self) -> str:
        return self.file.stem


def list_members(models: list[str], seeds: list[int]) -> list[Member]:
    """Return the members of the ensemble: for each model, one for each seed."""
    return [Member(model, seed) for model in models for seed in seeds]
