"""Predict the 15 classes for PNG, JPEG and DICOM files.

The networks, their calibration, thresholds and test-time augmentation are those of data/decisions.json, which `dvc
repro` writes. Probabilities are averaged over networks and views. With --model, probabilities are calibrated and
compared with thresholds only if data/decisions.json was written for exactly these model files.

Images are prepared as in training. Of 16-bit PNGs the eight most significant bits in use are kept; JPEGs are rotated by
their EXIF orientation; DICOM files (pip install -r requirements-predict.txt) are converted by their rescale, VOI window
and MONOCHROME1. Images that are clearly not frontal chest radiographs (colour, unusual aspect ratio, inverted, other
layout) get a warning and are still predicted. Unreadable files are reported and skipped, and the exit code is 1.

Not for clinical use.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from cxr.core.errors import InputError, warn
from cxr.core.files import write_csv, write_json
from cxr.core.labels import CLASSES
from cxr.models.device import init_device
from tools.output_file import check_output_file, is_standard_output, output_file
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.inputs import find_files
from tools.predict.output import column_width, format_line, format_table, printable, summary, to_json, to_table
from tools.predict.overlays import OverlayFolder
from tools.predict.predicting import Prediction, SaliencyOptions, predict_files
from tools.predict.reading import Failure

EXAMPLES = """examples:
  python -m tools.predict chest.png                             print a table
  python -m tools.predict images/ 'more/**/*.dcm'               print a line for each image
  python -m tools.predict images/ --csv predictions.csv         write all digits to a table
  python -m tools.predict chest.png --saliency-maps maps        write overlays of saliency maps
  python -m tools.predict chest.png --prevalence Mass=0.02      correct to a prevalence
  python -m tools.predict chest.png --model a.safetensors b.safetensors
"""
MAX_TABLES = 4  # with more images, each is printed as a line


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.predict",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="image, folder, or quoted pattern")
    parser.add_argument(
        "--model", nargs="+", type=Path, default=[], metavar="FILE", help="model files; give the images first"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV file instead of printing predictions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a JSON file instead of printing predictions")
    parser.add_argument(
        "--saliency-maps", type=Path, metavar="DIR", help="write overlays of the saliency maps of predicted positives"
    )
    parser.add_argument(
        "--class", dest="only", choices=CLASSES, metavar="NAME", help="saliency maps of this class only"
    )
    parser.add_argument(
        "--prevalence",
        nargs="+",
        default=[],
        metavar="CLASS=FRACTION",
        help="correct the probabilities to another prevalence than that of validation, such as Pneumothorax=0.1",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a batch (default: 32)")
    return parser


def check_arguments(args: argparse.Namespace, files: Sequence[Path]) -> None:
    """Check for errors that would otherwise occur only after the predictions.

    Raises:
        InputError: if an option has an impossible value.
    """
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size}: must be at least 1")
    if args.only and not args.saliency_maps:
        raise InputError(f"--class {args.only}: selects saliency maps; add --saliency-maps DIR")
    inputs = {os.path.realpath(file) for file in files}
    for option, path in _outputs(args):
        check_output_file(option, path, allow_special=True)
        if os.path.realpath(path) in inputs:
            raise InputError(f"{option} {path}: this is one of the images; give another file")
    if args.csv and args.json and os.path.realpath(args.csv) == os.path.realpath(args.json):
        raise InputError(f"--csv {args.csv}: --json names the same file; give another file")


def parse_prevalence(values: Sequence[str]) -> dict[str, float]:
    """Return the prevalence of each class from texts such as `Mass=0.05`.

    Raises:
        InputError: if a class is unknown or given twice, or a prevalence is not between 0 and 1.
    """
    prevalence: dict[str, float] = {}
    for text in values:
        name, _, number = text.partition("=")
        try:
            fraction = float(number)
        except ValueError:
            fraction = 0
        if name not in CLASSES or name in prevalence or not 0 < fraction < 1:
            raise InputError(
                f"--prevalence {text}: give each class once as CLASS=FRACTION, with a fraction above 0 and below 1, "
                f"such as Mass=0.05; the classes are {', '.join(CLASSES)}"
            )
        prevalence[name] = fraction
    return prevalence


def _outputs(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return the options that write a file and are given, with their paths."""
    return [(option, path) for option, path in (("--csv", args.csv), ("--json", args.json)) if path]


def main() -> None:
    """Predict all files and write or print the results.

    Raises:
        InputError: if an argument is wrong, or at the end, if a file cannot be read.
    """
    args = command_line().parse_args()
    files = find_files(args.inputs)
    check_arguments(args, files)
    saliency = SaliencyOptions(OverlayFolder(args.saliency_maps, files), args.only) if args.saliency_maps else None
    prevalence = parse_prevalence(args.prevalence)
    ensemble = load_ensemble(args.model, init_device(os.cpu_count() or 1, deterministic=True)).at_prevalence(prevalence)
    if args.only in ensemble.untrained:
        raise InputError(f"--class {args.only}: the networks were trained without labels of this class")
    results = predict_files(files, ensemble, args.batch_size, saliency)
    predictions, failures = collect(results, files, ensemble, print_each=not (args.csv or args.json))
    is_printed = any(is_standard_output(path) for _, path in _outputs(args))
    if args.csv:
        with output_file(args.csv) as path:
            write_csv(to_table(predictions), path)
    if args.json:
        with output_file(args.json) as path:
            write_json(to_json(predictions, failures, ensemble), path)
    print(summary(predictions, failures, ensemble), file=sys.stderr if is_printed else sys.stdout)
    if failures:
        raise InputError(f"{len(failures):,} of {len(files):,} files cannot be read: see the warnings above")


def collect(
    results: Iterator[Prediction | Failure], files: Sequence[Path], ensemble: Ensemble, *, print_each: bool
) -> tuple[list[Prediction], list[Failure]]:
    """Return predictions and failures; print failures, and predictions if `print_each`, as they arrive."""
    predictions, failures, width = [], [], column_width(files)
    # disable=None: no progress bar unless standard error is a terminal. Messages are printed above the bar.
    for item in tqdm(results, "predict", len(files), disable=None, leave=not print_each, unit=" images"):
        if isinstance(item, Failure):
            failures.append(item)
            with tqdm.external_write_mode():
                warn(f"{printable(item.file)}: {printable(item.reason)}")
        else:
            predictions.append(item)
            if print_each:
                is_few = len(files) <= MAX_TABLES
                tqdm.write(format_table(item, ensemble) if is_few else format_line(item, ensemble, width))
    return predictions, failures
