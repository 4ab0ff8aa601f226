"""Model files: the weights of a trained network and its description in one safetensors file."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cxr.core.errors import InputError, format_names
from cxr.core.files import check_regular_file
from cxr.core.labels import CLASSES
from cxr.core.params import ImageSize, Strict
from cxr.models.classifier import Architecture, Classifier, build_classifier, check_model_name
from cxr.models.operating_points import OperatingPoints
from cxr.models.params import ModelName


class Description(Strict):
    """The description in a model file: the fields of `Architecture`, classes, normalisation, and how it was trained.

    `operating_points` are those of `OperatingPoints`, one for each class, of networks that have this layer.

    A file may come from anyone, so that values are checked before timm receives them. `ModelName` excludes names with
    which timm loads a model from a hub or a folder.
    """

    model: ModelName
    in_chans: Literal[1, 3]
    image_size: ImageSize
    attention_pool: bool
    classes: list[str]
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    seed: int = 0
    patients: list[int] = Field(default=[])
    val_patients: list[int] = Field(default=[])
    operating_points: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default=[])
    untrained: list[Literal[CLASSES]] = Field(default=[])  # type: ignore[valid-type]
    params: dict[str, Any] = Field(default={})
    best_epoch: int = 0
    val_auroc: float = 0

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        try:
            check_model_name(model)
        except InputError as error:
            raise ValueError(str(error).removeprefix("models: ")) from None
        return model

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: list[str]) -> list[str]:
        if classes != list(CLASSES):
            raise ValueError(f"trained on other classes: {format_names(classes, 15)}")
        return classes

    @field_validator("operating_points")
    @classmethod
    def _check_operating_points(cls, values: list[float]) -> list[float]:
        if len(values) not in (0, len(CLASSES)):
            raise ValueError(f"{len(values)} operating points for {len(CLASSES)} classes")
        return values

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if not len(self.mean) == len(self.std) == self.in_chans:
            raise ValueError(f"mean and std must have {self.in_chans} values, one for each channel")
        return self


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
    """Return the description in a file that `save_model` wrote, with the entries that the file has.

    Raises:
        InputError: if the file is missing, damaged, or was not written by this project.
    """
    try:
        check_regular_file(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("cxr")
    except (OSError, SafetensorError, InputError) as error:
        raise InputError(f"{path} is not a model file: {error}") from None
    if text is None:
        raise InputError(f"{path} does not describe a network: it was not written by this project")
    try:
        return Description.model_validate_json(text).model_dump(exclude_unset=True)
    except ValidationError as error:
        problem = error.errors()[0]
        location = ".".join(map(str, problem["loc"])) or "the whole"
        raise InputError(
            f"{path} has an invalid description ({location}: {problem['msg']}): it was damaged, or not written by this "
            "version of the project"
        ) from None


def load_model(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a file that `save_model` wrote; return the network in evaluation mode, and its description.

    Raises:
        InputError: if the file is missing, damaged, or was not written by this project.
    """
    description = read_description(path)
    architecture = Architecture(**{name: description[name] for name in Architecture._fields})
    try:
        classifier = build_classifier(architecture)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    classifier.mean.copy_(torch.tensor(description["mean"]).view_as(classifier.mean))
    classifier.std.copy_(torch.tensor(description["std"]).view_as(classifier.std))
    state = load_file(path)
    if problem := _tensor_problem(state, classifier.state_dict()):
        raise InputError(f"{path} does not hold the weights of {description['model']}: {problem}")
    classifier.load_state_dict(state)
    if points := description.get("operating_points"):
        classifier.operating_points = OperatingPoints(points)
    with torch.no_grad():
        black = torch.zeros(1, 1, architecture.image_size, architecture.image_size)
        if not classifier.eval()(black).isfinite().all():
            raise InputError(f"{path} holds damaged weights: the logits of a black image are not finite")
    return classifier, description


def _tensor_problem(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """Return what is wrong with the first tensor that is not as in `expected`, or is not finite; None if all are."""
    for name in sorted(state.keys() | expected):
        if name not in state or name not in expected:
            return f"{name} is {'missing' if name in expected else 'unknown'}"
        found, right = _layout(state[name]), _layout(expected[name])
        if found != right:
            return f"{name} is {found} instead of {right}"
        if not state[name].isfinite().all():
            return f"{name} has values that are nan or infinite"
    return None


def _layout(tensor: Tensor) -> str:
    """Return the data type and the shape of a tensor, such as float32 [8, 3, 3, 3]."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
