"""Pretrained weights: the file of a model, and the check that it fits."""

from pathlib import Path

import timm
import torch
from safetensors import safe_open

from cxr.core.errors import InputError


def pretrained_weights_path(model: str, weights_dir: Path) -> Path:
    """Return the path of the pretrained weights of a timm model.

    Raises:
        InputError: if the file is missing.
    """
    path = weights_dir / f"{model}.safetensors"
    if not path.is_file():
        raise InputError(
            f"weights: there is no {path}; download it with `python -m tools.weights {model}`, "
            "set weights_dir to another folder, or set weights to none to start from random weights"
        )
    return path


def check_pretrained_weights(model: str, path: Path) -> None:
    """Compare the tensor names in a file with those of a timm model, since timm ignores tensors that do not fit.

    Raises:
        KeyError: if a tensor is missing or unknown.
    """
    with torch.device("meta"):
        expected = timm.create_model(model).state_dict()
    with safe_open(path, "pt") as file:
        names = set(file.keys())
    # Files that were written for inference alone have no batch counters.
    mismatched = {name for name in names ^ set(expected) if not name.endswith("num_batches_tracked")}
    if mismatched:
        raise KeyError(f"{len(mismatched)} tensors are missing or unknown, such as {min(mismatched)}")
