"""Download timm's pretrained weights, for `weights: imagenet`.

    python -m tools.weights efficientnet_b3                             from timm's hub
    python -m tools.weights efficientnet_b3 --from model.safetensors    from a file (also .pth and .bin)

Writes data/weights/MODEL.safetensors (--to selects another folder) in the format that training reads, and prints its
SHA-256 hash. The folder is a dependency of `train`: dvc.lock has its hash, and different weights cause a new training.
The files are neither in git nor in DVC's cache; use `dvc add` to push and pull them.

Downloading from the hub has not been tested; reading files has.
"""

import argparse
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cxr.core.errors import InputError, first_lines, run_as_script
from cxr.core.files import atomic_write, sha256
from cxr.models.classifier import check_model_name

FOLDER = Path("data/weights")


def fetch_weights(model: str, folder: Path, file: Path | None = None) -> Path:
    """Write the pretrained weights of `model` to `folder` and return the path of the file.

    Args:
        model: a model of timm.
        folder: the target folder.
        file: a file with the weights; if None, they are downloaded from timm's hub.

    Raises:
        InputError: if timm has no such model or no weights of it, the hub is unreachable, or `file` has other weights.
    """
    check_model_name(model)
    state = _from_hub(model) if file is None else _from_file(model, file)
    path = folder / f"{model}.safetensors"
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, temporary
        )
    return path


def _from_hub(model: str) -> dict[str, Tensor]:
    config = timm.get_pretrained_cfg(model)
    if not config or not config.has_weights:
        raise InputError(
            f"timm {timm.__version__} has no pretrained weights of {model}; choose another model or set weights to none"
        )
    try:
        state: dict[str, Tensor] = timm.create_model(model, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot download the weights of {model} from timm's hub ({first_lines(error)}); check the connection and "
            f"try again, or download https://huggingface.co/{config.hf_hub_id} elsewhere and use --from FILE"
        ) from None
    return state


def _from_file(model: str, file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"--from {file}: file not found")
    try:
        overlay = {"file": str(file), "hf_hub_id": None}
        network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, ValueError, SafetensorError, UnpicklingError) as error:
        raise InputError(f"{file} does not contain weights of {model}: {first_lines(error)}") from None
    state: dict[str, Tensor] = network.state_dict()
    return state


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser; its help is the docstring of this module."""
    parser = argparse.ArgumentParser(
        "python -m tools.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name of a model in timm")
    parser.add_argument("--from", type=Path, dest="file", metavar="FILE", help="read the weights from this file")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help=f"target folder (default: {FOLDER})")
    return parser


def main() -> None:
    """Write the weights of each model and print the next command."""
    args = command_line().parse_args()
    if args.file and len(args.models) > 1:
        raise InputError(f"--from {args.file}: a file has the weights of one model, but {len(args.models)} are given")
    for model in args.models:
        path = fetch_weights(model, args.to, args.file)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}")
    folder = "" if args.to == FOLDER else f" -S weights_dir={args.to}"
    print(f"next: dvc exp run -S 'models=[{','.join(args.models)}]' -S weights=imagenet -S in_chans=3{folder}")


if __name__ == "__main__":
    run_as_script(main)
