"""Write trained networks as one ONNX file with the probabilities of tools.predict, or one of them for timm.

Without MODEL, the networks, calibration, thresholds and test-time augmentation of data/decisions.json are exported.
Model files for which data/decisions.json was not written are exported without calibration and thresholds.

Input:   images, uint8 [batch, size, size], as written by the resize stage.
Outputs: probabilities, float32 [batch, 15], and, with thresholds, predicted_positive, bool [batch, 15].

Normalisation, test-time augmentation, averaging and calibration are part of the graph. The metadata of the file
describes the preprocessing (as text and as JSON), classes, thresholds and networks. The file is kept only if its
probabilities in onnxruntime match PyTorch's on synthetic images; without onnxruntime, a warning states that the
comparison was skipped. The same networks give the same bytes.

With --timm DIR, one network is written to a new folder as config.json, model.safetensors and a model card, which
timm.create_model("local-dir:DIR", pretrained=True) loads with the same logits, without calibration and thresholds.

Needs pip install -r requirements-export.txt, except for --timm. Not for clinical use.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from cxr.core.errors import InputError
from cxr.core.files import sha256
from tools.export.metadata import build_metadata
from tools.export.timm_folder import check_timm_folder, write_timm_folder
from tools.output_file import check_output_file
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.output import NOT_CLINICAL

EXAMPLES = """examples:
  python -m tools.export
  python -m tools.export a.safetensors b.safetensors --output chest.onnx
  python -m tools.export --timm chest
"""
OUTPUT = Path("data/ensemble.onnx")
REQUIRED = ("onnx", "onnx_ir", "onnxscript")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.export",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="model files")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT}")
    target.add_argument("--timm", type=Path, metavar="DIR", help="write one network as a folder that timm loads")
    return parser


def check_arguments(models: Sequence[Path], output: Path) -> None:
    """Check for errors that would otherwise occur only after the export.

    Raises:
        InputError: if a package is missing, or `output` cannot be written or is one of `models`.
    """
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} must be installed: pip install -r requirements-export.txt")
    check_output_file("--output", output)
    if output.resolve() in {model.resolve() for model in models}:
        raise InputError(f"--output {output}: this is one of the model files; give another file")


def main() -> None:
    """Export the networks and print a summary."""
    args = command_line().parse_args()
    export = export_timm if args.timm else export_onnx
    # On a CPU, where every operation is supported, so that all machines write the same file.
    print(export(args, torch.device("cpu")))


def export_onnx(args: argparse.Namespace, device: torch.device) -> str:
    """Write the ONNX file of the command line; return a summary."""
    check_arguments(args.models, args.output)
    from tools.export.onnx_file import write_onnx  # noqa: PLC0415 (its packages may be missing)

    ensemble = load_ensemble(args.models, device)
    difference = write_onnx(ensemble, build_metadata(ensemble), args.output)
    return export_summary(args.output, ensemble, difference)


def export_timm(args: argparse.Namespace, device: torch.device) -> str:
    """Write the folder for timm of the command line; return a summary."""
    check_timm_folder(args.timm)
    ensemble = load_ensemble(args.models, device)
    difference = write_timm_folder(ensemble, args.timm)
    loads = f'{args.timm}: timm.create_model("local-dir:{args.timm}", pretrained=True) loads {ensemble.files[0].stem}'
    return f"{loads}\nmaximum difference of a logit: {difference:.1e}\n{NOT_CLINICAL}"


def export_summary(path: Path, ensemble: Ensemble, difference: float | None) -> str:
    """Return the file's size and hash, the networks in it, and the largest difference of a probability."""
    members = ", ".join(file.stem for file in ensemble.files)
    views = f"{len(ensemble.views)} TTA view{'s' if len(ensemble.views) > 1 else ''}"
    kind = "calibrated, with thresholds" if ensemble.decisions else "not calibrated, no thresholds"
    lines = [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}",
        f"{members} at {ensemble.image_size} px, {views}, {kind}",
    ]
    if difference is not None:
        lines.append(f"maximum difference between onnxruntime and PyTorch: {difference:.1e}")
    return "\n".join([*lines, NOT_CLINICAL])
