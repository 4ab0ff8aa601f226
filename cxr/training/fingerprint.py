"""Everything that the weights of a trained network depend on. Any change restarts training from the first epoch."""

import sys
from pathlib import Path
from typing import Any

import torch

from cxr.core import cpu
from cxr.core.files import sha256
from cxr.core.paths import IMAGES, SAMPLE, SPLIT
from cxr.models.device import describe_device, library_versions
from cxr.models.members import Member
from cxr.training.params import TrainParams

_PROJECT = Path(__file__).resolve().parents[2]


def common_dependencies(params: TrainParams, device: torch.device) -> dict[str, Any]:
    """Return the dependencies of all members, as JSON values: parameters, data, code, device and libraries.

    The settings of the CPU's libraries are part of it on a GPU too, where they hardly matter: the initial weights of a
    network come from the CPU.
    """
    return {
        "params": member_params(params),
        "data": {str(path): sha256(path) for path in (SAMPLE, SPLIT, IMAGES)},
        "code": loaded_code(),
        "device": describe_device(device),
        "libraries": library_versions(),
        "cpu": cpu.settings(),
    }


def member_dependencies(member: Member, initial_weights: Path | None) -> dict[str, Any]:
    """Return the additional dependencies of one member, as JSON values: model, seed and initial weights."""
    weights = sha256(initial_weights) if initial_weights else None
    return {"model": member.model, "seed": member.seed, "weights": weights}


def member_params(params: TrainParams) -> dict[str, Any]:
    """Return the parameters that affect the training of a member: all but the list of members and `weights_dir`."""
    return params.model_dump(mode="json", exclude={"models", "seeds", "weights_dir"})


def loaded_code(project: Path = _PROJECT) -> dict[str, str]:
    """Return the SHA-256 of each imported file of `cxr/` and `stages/`, by its path in the project."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {Path(file).resolve() for file in files if file}
    folders = (project / "cxr", project / "stages")
    own = {path for path in paths if any(path.is_relative_to(folder) for folder in folders)}
    return {str(path.relative_to(project)): sha256(path) for path in sorted(own)}
