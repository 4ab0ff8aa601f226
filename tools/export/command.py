"""Write trained networks as one ONNX file that gives the numbers of tools.predict, without PyTorch or this project.

    python -m tools.export                                        the networks in data/decisions.json
    python -m tools.export a.safetensors b.safetensors            others, which describe themselves
    python -m tools.export --output chest.onnx                    into another file than data/ensemble.onnx

In goes what the stage resize makes, uint8 [batch, size, size], of any number of images; out come `probabilities`,
float32 [batch, 15], and `called`, bool [batch, 15]: whether each is at or above its threshold. Normalisation, the views
of evaluate, the mean over networks and views, and calibration are inside. Networks that data/decisions.json was not
made for are not calibrated, have no thresholds, and call nothing.

The file's metadata says how to prepare an image, in words and as JSON, and names classes, thresholds and networks. Each
file is compared with the networks, by onnxruntime on drawn images, before it gets its name. The same networks give the
same bytes. Needs `pip install -r requirements-export.txt`.

Not for clinical use.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from cxr.core.errors import InputError
from cxr.core.files import sha256
from tools.export.metadata import describe
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.output import NOT_CLINICAL

OUTPUT = Path("data/ensemble.onnx")
NEEDED = ("onnx", "onnx_ir", "onnxscript")


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="networks' files (default: see above)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT}")
    return parser


def check(models: Sequence[Path], output: Path) -> None:
    """Refuse what could not be done at the end, before any work."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} must be installed first: pip install -r requirements-export.txt")
    if output.is_dir():
        raise InputError(f"--output {output}: that is a folder; name a file")
    if output.resolve() in {model.resolve() for model in models}:
        raise InputError(f"--output {output}: that is one of the networks; name another file")


def main() -> None:
    """Export, and say what was written and how well it agrees."""
    asked = command_line().parse_args()
    check(asked.models, asked.output)
    from tools.export.writing import write  # noqa: PLC0415 (its packages may be missing)

    # A CPU knows all operations of every network, and the file is the same for all.
    ensemble = load_ensemble(asked.models, torch.device("cpu"))
    difference = write(ensemble, describe(ensemble), asked.output)
    print(summary(asked.output, ensemble, difference))


def summary(path: Path, ensemble: Ensemble, difference: float | None) -> str:
    """What was written, of which networks, and how far it is from them."""
    members = ", ".join(file.stem for file in ensemble.files)
    views = f"{len(ensemble.views)} view{'s' if len(ensemble.views) > 1 else ''}"
    nature = "calibrated, with thresholds" if ensemble.decisions else "not calibrated, no thresholds"
    lines = [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}",
        f"{members} at {ensemble.image_size} px, {views} of each image, {nature}",
    ]
    if difference is not None:
        lines.append(f"onnxruntime's probabilities differ from the networks' by {difference:.1e} at most")
    return "\n".join([*lines, NOT_CLINICAL])
