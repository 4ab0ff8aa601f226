"""Fetch timm's pretrained weights of networks, for `weights: imagenet`.

    python -m tools.weights efficientnet_b3                             from timm's hub
    python -m tools.weights efficientnet_b3 --from model.safetensors    from a file that you have (also .pth, .bin)

Writes data/weights/MODEL.safetensors (--to names another folder) in the form that training reads, and prints its
SHA-256. The folder is a dependency of `train`: DVC writes its hash into dvc.lock, and other weights mean another
training. The files themselves are in neither git nor DVC's cache; to push and pull them too, `dvc add` them.

The hub was never reached when this was tried, for want of a network; files were.
"""

import argparse
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import atomic_write, sha256
from cxr.models.classifier import check_model_name

FOLDER = Path("data/weights")


def fetch_weights(model: str, folder: Path, file: Path | None = None) -> Path:
    """Write the pretrained weights of `model`, from timm's hub or `file`, into `folder`; return the path.

    Raises:
        InputError: where timm knows no such network or has no weights of it, the hub cannot be reached, or `file` holds
            another network's.
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
        raise InputError(f"timm {timm.__version__} has no pretrained weights of {model}: take another, or weights none")
    try:
        state: dict[str, Tensor] = timm.create_model(model, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"timm's hub did not give the weights of {model} ({_first_line(error)}); look at the network, and run "
            f"again; or fetch https://huggingface.co/{config.hf_hub_id} elsewhere, and give its file with --from"
        ) from None
    return state


def _from_file(model: str, file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"--from {file}: there is no such file")
    try:
        overlay = {"file": str(file), "hf_hub_id": None}
        network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, ValueError, SafetensorError, UnpicklingError) as error:
        raise InputError(f"{file} does not hold weights of {model}: {_first_line(error)}") from None
    state: dict[str, Tensor] = network.state_dict()
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a network's name in timm")
    parser.add_argument("--from", type=Path, dest="file", metavar="FILE", help="its weights, if you have them")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help=f"the folder (default: {FOLDER})")
    return parser


def main() -> None:
    """Fetch the weights of each network, and name the next command."""
    asked = command_line().parse_args()
    if asked.file and len(asked.models) > 1:
        raise InputError(f"--from {asked.file}: one file holds one network, and {len(asked.models)} are named")
    for model in asked.models:
        path = fetch_weights(model, asked.to, asked.file)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}")
    there = "" if asked.to == FOLDER else f" -S weights_dir={asked.to}"
    print(f"next: dvc exp run -S 'models=[{','.join(asked.models)}]' -S weights=imagenet -S in_chans=3{there}")


if __name__ == "__main__":
    run_as_script(main)
