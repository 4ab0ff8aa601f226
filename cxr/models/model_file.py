"""Model files: the weights of a trained network and its description in one safetensors file."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from cxr.core.errors import InputError, first_lines
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, Classifier, build_classifier


def save_model(classifier: Classifier, architecture: Architecture, training: dict[str, Any], path: Path) -> None:
    """Write the weights and the description of a network to a safetensors file.

    The description holds the architecture, the classes and the normalisation, and the entries of `training`. Equal
    arguments give equal bytes.

    Args:
        classifier: the network to save.
        architecture: its architecture.
        training: how it was trained, as JSON values; existing entries of the description are replaced.
        path: the file to write.

    Raises:
        InputError: if the file cannot be written.
    """
    description = {
        **architecture._asdict(),
        "classes": list(CLASSES),
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        **training,
    }
    state = {name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    # A single key, because safetensors writes several metadata keys in random order.
    try:
        save_file(state, path, {"cxr": json.dumps(description, sort_keys=True)})
    except SafetensorError as error:
        raise InputError(f"cannot write {path}; is the disk full? ({error})") from None


def read_description(path: Path) -> dict[str, Any]:
    """Return the description in a file that `save_model` wrote.

    Raises:
        InputError: if the file is missing, damaged, or was not written by this project.
    """
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("cxr", "null"))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a model file: {error}") from None
    required = (*Architecture._fields, "classes", "mean", "std")
    if description is None or any(name not in description for name in required):
        raise InputError(f"{path} does not describe a network: it was not written by this project")
    if description["classes"] != list(CLASSES):
        raise InputError(f"{path} was trained on other classes: {', '.join(description['classes'])}")
    return dict(description)


def load_model(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a file that `save_model` wrote; return the network in evaluation mode, and its description.

    Raises:
        InputError: if the file is missing, damaged, or was not written by this project.
    """
    description = read_description(path)
    architecture = Architecture(**{name: description[name] for name in Architecture._fields})
    classifier = build_classifier(architecture)
    classifier.mean.copy_(torch.tensor(description["mean"]).view_as(classifier.mean))
    classifier.std.copy_(torch.tensor(description["std"]).view_as(classifier.std))
    try:
        classifier.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of {description['model']}: {first_lines(error)}") from None
    return classifier.eval(), description
