"""Pretrained weights: which file a training starts from, and whether it fits the network."""

from pathlib import Path

import timm
import torch
from safetensors import safe_open

from cxr.core.errors import InputError


def weights_file(model: str, weights_dir: Path) -> Path:
    """The file of pretrained weights of `model`; InputError where it is missing."""
    path = weights_dir / f"{model}.safetensors"
    if not path.is_file():
        raise InputError(
            f"weights: there is no {path}; fetch it with `python -m tools.weights {model}`, "
            "name another folder in weights_dir, or set weights to none to start from random ones"
        )
    return path


def check_weights(model: str, path: Path) -> None:
    """Raise KeyError where the file lacks a tensor of `model` or has another: timm itself loads what happens to fit."""
    with torch.device("meta"):
        expected = timm.create_model(model).state_dict()
    with safe_open(path, "pt") as file:
        there = set(file.keys())
    # Counters of batches are in no file that was written for inference alone.
    wrong = {name for name in there ^ set(expected) if not name.endswith("num_batches_tracked")}
    if wrong:
        raise KeyError(f"{len(wrong)} tensors are missing or unknown, such as {min(wrong)}")
