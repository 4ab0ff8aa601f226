"""Networks: a timm backbone that takes gray pixels, its pretrained weights, and the file of a trained one."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cxr.errors import InputError
from cxr.findings import CLASSES


class Architecture(NamedTuple):
    """All that is needed to build a network but its weights."""

    model: str  # a name that timm knows
    channels: int  # 1 or 3
    image_size: int  # pixels


class Classifier(nn.Module):
    """A timm network on gray pixels, with the normalisation that its pretrained weights expect."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, channels: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        for name, values in (("mean", mean), ("std", std)):
            # One channel takes the average of the three; gray pictures have no better value for it.
            fitting = values if channels == len(values) else [sum(values) / len(values)]
            self.register_buffer(name, torch.tensor(fitting).view(1, channels, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float [images, 15], of `pixels`, float [images, 1, height, width] from 0 to 1."""
        # One pass makes all channels, in the order that convolutions want: channels last.
        gray = pixels.permute(0, 2, 3, 1)
        normal = torch.addcmul(-(self.mean / self.std).flatten(), gray, (1 / self.std).flatten()).permute(0, 3, 1, 2)
        logits: Tensor = self.backbone(normal)
        return logits


def check_name(model: str) -> None:
    """Raise InputError, with close matches, where timm knows no network called `model`."""
    if not timm.is_model(model):
        close = get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise InputError(f"models: timm {timm.__version__} knows no network {model!r}; {hint}")
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise InputError(f"models: {error}") from None


def weights_file(model: str, weights_dir: Path) -> Path:
    """The file of pretrained weights of `model`; InputError where it is missing."""
    path = weights_dir / f"{model}.safetensors"
    if not path.is_file():
        raise InputError(
            f"weights: there is no {path}; put timm's weights of {model} there (README.md, Pretrained weights), "
            "name another folder in weights_dir, or set weights to none to start from random ones"
        )
    return path


def build(architecture: Architecture, pretrained: Path | None = None) -> Classifier:
    """Build a network with 15 outputs; all but the last layer start from `pretrained` where it is given.

    Weights that are not loaded are drawn from PyTorch's global generator: seed it first.

    Raises:
        InputError: where the weights belong to another network, or the network cannot take these images.
    """
    model, channels, image_size = architecture
    config = timm.get_pretrained_cfg(model)
    options: dict[str, Any] = {"img_size": image_size} if config and config.fixed_input_size else {}
    if pretrained:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained), "hf_hub_id": None}}
    try:
        if pretrained:
            _check_weights(model, pretrained)
        backbone = timm.create_model(model, num_classes=len(CLASSES), in_chans=channels, **options)
        _try_once(backbone, channels, image_size)
    except (RuntimeError, KeyError, SafetensorError, AssertionError) as error:
        what = f"the weights {pretrained} do not fit" if pretrained else "timm cannot build"
        raise InputError(f"{what} {model} with {channels} channels at {image_size} px: {_short(error)}") from None
    normalisation: Any = backbone.pretrained_cfg
    classifier = Classifier(backbone, channels, list(normalisation["mean"]), list(normalisation["std"]))
    # Channels last: convolutions are a quarter to a half faster on a CPU, and tensor cores want it.
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def save(classifier: Classifier, architecture: Architecture, description: dict[str, Any], path: Path) -> None:
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
    state = {name: tensor.cpu().contiguous() for name, tensor in classifier.backbone.state_dict().items()}
    # One key only: safetensors writes several metadata keys in random order.
    try:
        save_file(state, path, {"cxr": json.dumps(about, sort_keys=True)})
    except SafetensorError as error:
        raise InputError(f"{path} cannot be written; is the disk full? ({error})") from None


def describe(path: Path) -> dict[str, Any]:
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


def load(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Read a file that `save` wrote; return the network, ready to predict, and what the file says of it.

    Raises:
        InputError: where the file is missing, broken, or was not written by this project.
    """
    about = describe(path)
    architecture = Architecture(**{name: about[name] for name in Architecture._fields})
    classifier = build(architecture)
    classifier.mean.copy_(torch.tensor(about["mean"]).view_as(classifier.mean))
    classifier.std.copy_(torch.tensor(about["std"]).view_as(classifier.std))
    try:
        classifier.backbone.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of {about['model']}: {_short(error)}") from None
    return classifier.eval(), about


def _try_once(backbone: nn.Module, channels: int, image_size: int) -> None:
    """Predict one black image, so that a network too deep for the image size fails here and not in the first step."""
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, channels, image_size, image_size))
    backbone.train()


def _check_weights(model: str, path: Path) -> None:
    """Raise KeyError where the file lacks a tensor of `model` or has another: timm itself loads what happens to fit."""
    with torch.device("meta"):
        expected = timm.create_model(model).state_dict()
    with safe_open(path, "pt") as file:
        there = set(file.keys())
    # Counters of batches are in no file that was written for inference alone.
    wrong = {name for name in there ^ set(expected) if not name.endswith("num_batches_tracked")}
    if wrong:
        raise KeyError(f"{len(wrong)} tensors are missing or unknown, such as {min(wrong)}")


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:2])[:300]
