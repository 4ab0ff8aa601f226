"""Make a model file of a network of others, for tools.predict, tools.evaluate, tools.export and tools.app.

    python -m tools.import_model torchxrayvision:densenet121-res224-nih --output xrv-nih.safetensors
    python -m tools.import_model FOLDER --output other.safetensors
    python -m tools.import_model hf-hub:OWNER/NAME --output other.safetensors --classes "Mass,Nodule,..."

The first needs the package torchxrayvision, which downloads the weights. A FOLDER has timm's config.json and
model.safetensors; hf-hub: loads the same from the hub. The network must be a timm model whose head is one linear layer
with one logit for each label. Outputs are matched with the 15 classes by name (label_names in config.json, or
--classes); others are dropped, and classes without an output are left out of predictions and metrics.

The normalisation is the original's, and torchxrayvision's operating points become 0.5, as in its own outputs. Images
are resized to a square of the network's input size without cropping, as everywhere in this project. The file is written
only if its probabilities agree with the original network's. The training patients are not known, so that no leak check
is possible.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cxr.core.errors import InputError, first_lines, format_names, run_as_script
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, Classifier, build_classifier, check_model_name
from cxr.models.model_file import save_model
from cxr.models.operating_points import OperatingPoints
from tools.evaluate.names import class_of
from tools.output_file import check_output_file, output_file

XRV, HUB = "torchxrayvision:", "hf-hub:"
WEIGHTS = "model.safetensors"
TOLERANCE = 1e-5  # of probabilities
_FAILURES = (RuntimeError, KeyError, ValueError, TypeError, OSError, AssertionError, SafetensorError)


class Network(NamedTuple):
    """A network of others.

    Attributes:
        source: where it is from.
        architecture: the timm model with the same layers.
        module: with the parameters of that model, but its own number of outputs.
        head: name of the last layer in `module`.
        outputs: the name of each output.
        mean: of the input's normalisation, for each channel.
        std: likewise.
        operating_points: of each output, as probabilities, nan if it has none; empty for a network without them.
        predict: returns probabilities, float [images, outputs], for images, float [images, 1, side, side] from 0 to 1.
    """

    source: str
    architecture: Architecture
    module: nn.Module
    head: str
    outputs: list[str]
    mean: list[float]
    std: list[float]
    operating_points: list[float]
    predict: Callable[[Tensor], Tensor]


def load_torchxrayvision(weights: str) -> Network:
    """Load a DenseNet of torchxrayvision with the weights of this name.

    Raises:
        InputError: if the package is missing, or cannot load such weights.
    """
    try:
        models: Any = import_module("torchxrayvision.models")
    except ImportError as error:
        raise InputError(f"torchxrayvision cannot be imported ({error}): pip install torchxrayvision") from None
    try:
        return adapt_densenet(models.DenseNet(weights=weights), f"{XRV}{weights}")
    except Exception as error:  # noqa: BLE001 (the package raises Exception for an unknown name)
        raise InputError(f"torchxrayvision cannot load {weights}: {first_lines(error)}") from None


def adapt_densenet(network: Any, source: str) -> Network:
    """Return torchxrayvision's DenseNet-121 `network`, whose input is gray, from -1024 to 1024."""
    points = network.op_threshs
    has_sigmoid = points is not None or network.apply_sigmoid
    network.eval()

    def predict(images: Tensor) -> Tensor:
        output: Tensor = network((2 * images - 1) * 1024)
        return output if has_sigmoid else output.sigmoid()

    return Network(
        source=source,
        architecture=Architecture("densenet121", 1, 224),
        module=network,
        head="classifier",
        outputs=list(network.targets),
        mean=[0.5],
        std=[1 / 2048],
        operating_points=[] if points is None else points.tolist(),
        predict=predict,
    )


def load_timm(source: str, classes: list[str]) -> Network:
    """Load a timm model from a folder, or from the hub (`hf-hub:OWNER/NAME`).

    Args:
        source: the folder or the name.
        classes: the name of each output; empty to use those of the model.

    Raises:
        InputError: if it cannot be loaded, its head is not one linear layer, or its outputs have no names.
    """
    if not source.startswith(HUB) and not (Path(source) / WEIGHTS).is_file():
        raise InputError(f"{source} has no {WEIGHTS}; give a folder of timm, {HUB}OWNER/NAME or {XRV}WEIGHTS")
    name = source if source.startswith(HUB) else f"local-dir:{source}"
    try:
        network: Any = timm.create_model(name, pretrained=True).eval()
    except _FAILURES as error:
        raise InputError(f"timm cannot load {source}: {first_lines(error)}") from None
    config = network.pretrained_cfg
    check_model_name(config["architecture"])
    outputs = classes or list(config.get("label_names") or [])
    head = _linear_head(network, source)
    if len(outputs) != network.num_classes:
        raise InputError(
            f"{source} has {network.num_classes} outputs and {len(outputs)} names of them; give all, in their order, "
            'with --classes "Mass,Nodule,..."'
        )
    channels, _, side = config["input_size"]
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    return Network(
        source=source,
        architecture=Architecture(config["architecture"], channels, side),
        module=network,
        head=head,
        outputs=outputs,
        mean=list(config["mean"]),
        std=list(config["std"]),
        operating_points=[],
        predict=lambda images: network((images.expand(-1, channels, -1, -1) - mean) / std).sigmoid(),
    )


def _linear_head(network: Any, source: str) -> str:
    layer = network.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise InputError(f"{source}: the head is {type(layer).__name__}, and only one linear layer is supported")
    return next(name for name, module in network.named_modules() if module is layer)


def match_outputs(network: Network) -> dict[str, int]:
    """Return the output of each class that the network has.

    Raises:
        InputError: if no output is a class, or two are the same.
    """
    has_point = [point == point for point in network.operating_points] or [True] * len(network.outputs)  # noqa: PLR0124
    named = [(class_of(name), row) for row, name in enumerate(network.outputs) if has_point[row]]
    found = [(name, row) for name, row in named if name]
    if not found:
        raise InputError(f"{network.source}: none of its outputs is a class: {format_names(network.outputs, 20)}")
    if len(dict(found)) < len(found):
        raise InputError(f"{network.source}: two outputs mean the same: {format_names(network.outputs, 20)}")
    return dict(found)


def convert(network: Network) -> tuple[Classifier, dict[str, Any]]:
    """Return the same network as a `Classifier`, and the entries of its description.

    Raises:
        InputError: if its layers are not those of the timm model, or its probabilities differ.
    """
    outputs = match_outputs(network)
    classifier = build_classifier(network.architecture).eval()
    state = {f"backbone.{name}": tensor for name, tensor in network.module.state_dict().items() if name != "op_threshs"}
    for part in ("weight", "bias"):
        state[f"backbone.{network.head}.{part}"] = _select(state[f"backbone.{network.head}.{part}"], outputs)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{network.source} is not timm's {network.architecture.model}: {first_lines(error)}") from None
    for buffer, values in ((classifier.mean, network.mean), (classifier.std, network.std)):
        buffer.copy_(torch.tensor(values).view_as(buffer))
    untrained = [name for name in CLASSES if name not in outputs]
    training: dict[str, Any] = {"untrained": untrained, "params": {"imported_from": network.source}}
    if network.operating_points:
        points = [network.operating_points[outputs[name]] if name in outputs else 0.5 for name in CLASSES]
        training["operating_points"] = points
        classifier.operating_points = OperatingPoints(points)
    check_agreement(classifier, network, outputs)
    return classifier, training


def _select(rows: Tensor, outputs: dict[str, int]) -> Tensor:
    """Return the rows of the 15 classes; zeros for classes that the network does not have."""
    chosen = rows.new_zeros(len(CLASSES), *rows.shape[1:])
    for name, row in outputs.items():
        chosen[CLASSES.index(name)] = rows[row]
    return chosen


def check_agreement(classifier: Classifier, network: Network, outputs: dict[str, int]) -> None:
    """Compare the probabilities for images of noise with those of the original network.

    Raises:
        InputError: if they differ by more than `TOLERANCE`.
    """
    side = network.architecture.image_size
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.predict(images)[:, list(outputs.values())]
        found = classifier(images).sigmoid()[:, [CLASSES.index(name) for name in outputs]]
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"{network.source} predicts other probabilities than timm's {network.architecture.model} with its weights "
            f"(they differ by {difference:.1g}): it was built with other options, which are not supported"
        )


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.import_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help=f"{XRV}WEIGHTS, {HUB}OWNER/NAME or a folder of timm")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the model file to write")
    parser.add_argument("--classes", default="", metavar="NAMES", help="names of the outputs, separated by commas")
    return parser


def main() -> None:
    """Load the network, convert it, and write the model file."""
    args = command_line().parse_args()
    check_output_file("--output", args.output)
    if args.source.startswith(XRV):
        network = load_torchxrayvision(args.source.removeprefix(XRV))
    else:
        network = load_timm(args.source, [name for name in args.classes.split(",") if name])
    classifier, training = convert(network)
    with output_file(args.output) as path:
        save_model(classifier, network.architecture, training, path)
    outputs = match_outputs(network)
    dropped = [name for row, name in enumerate(network.outputs) if name and row not in outputs.values()]
    print(f"{args.output}: {network.architecture.model} at {network.architecture.image_size} px from {network.source}")
    print(f"classes: {', '.join(outputs)}")
    if dropped:
        print(f"dropped outputs: {', '.join(dropped)}")


if __name__ == "__main__":
    run_as_script(main)
