"""Model files: weights and description of a trained network in one safetensors file."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from cxr.core.errors import InputError, first_lines
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, Classifier, build_classifier


def save_model(classifier: Classifier, architecture: Architecture, description: dict[str, Any], path: Path) -> None:
    """Write weights, architecture, classes, normalisation and `description` into one safetensors file.

    The file holds nothing but what it is given: the same network gives the same bytes.
    """
    about = {
        **architecture._asdict(),
        "classes": list(CLASSES),
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        **description,
    }
    state = {name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    # One key only: safetensors writes several metadata keys in random order.
    try:
        save_file(state, path, {"cxr": json.dumps(about, sort_keys=True)})
    except SafetensorError as error:
        raise InputError(f"{path} cannot be written; is the disk full? ({error})") from None


def read_description(path: Path) -> dict[str, Any]:
    """What a file that `save` wrote says of its network.

    Raises:
        InputError: where the file is missing, broken, or was not written by this project.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("cxr", "null"))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a model file: {error}") from None
    needed = (*Architecture._fields, "classes", "mean", "std")
    if about is None or any(name not in about for name in needed):
        raise InputError(f"{path} has no description of its network: it was not written by this project")
    if about["classes"] != list(CLASSES):
        raise InputError(f"{path} was trained for other classes: {', '.join(about['classes'])}")
    return dict(about)


def load_model(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Read a file that `save` wrote; return the network, ready to predict, and what the file says of it.

    Raises:
        InputError: where the file is missing, broken, or was not written by this project.
    """
    about = read_description(path)
    architecture = Architecture(**{name: about[name] for name in Architecture._fields})
    classifier = build_classifier(architecture)
    classifier.mean.copy_(torch.tensor(about["mean"]).view_as(classifier.mean))
    classifier.std.copy_(torch.tensor(about["std"]).view_as(classifier.std))
    try:
        classifier.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of {about['model']}: {first_lines(error)}") from None
    return classifier.eval(), about
