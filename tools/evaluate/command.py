"""Evaluate predictions or networks from anywhere, with the metrics and the report of the stage evaluate.

    python -m tools.evaluate --labels DATA --predictions FILE.csv --output FOLDER
    python -m tools.evaluate --labels DATA --model FILE … --output FOLDER

DATA is a folder in the layout of NIH or CheXpert, or a CSV table with the columns image, patient and classes (0, 1, or
empty if unknown), and perhaps age, sex and view. FILE.csv has a column of image names and a column of probabilities for
each class, in any order; classes and images that one side lacks are left out and named. Model files are those of
`data/models` or of `tools.import_model`; they predict the images of DATA (or of --images).

Nothing is fitted to the data: networks keep the thresholds and calibration of data/decisions.json if they are of
exactly these model files, otherwise, and for files of predictions, --threshold is used without calibration. What these
data would have chosen is shown beside it. FOLDER receives metrics/*.json, report.html, predictions.csv and sample.csv,
and is replaced if this command wrote it. `python -m tools.compare FOLDER OTHER` compares two of them.

Not for clinical use.
"""

import argparse
import os
from pathlib import Path

from cxr.core.errors import InputError, warn
from cxr.core.files import atomic_write
from cxr.core.paths import DECISIONS
from cxr.core.tables import LISTS
from cxr.evaluation.thresholds import DEFAULT_THRESHOLD
from cxr.models.device import init_device
from cxr.reporting.text import format_ci
from tools.evaluate.labels import LabelSet, read_labels
from tools.evaluate.measure import EXTERNAL, Settings, make_run, measure, write_results
from tools.evaluate.sources import PredictionSource, check_patients, decode_images, predict_source, read_source
from tools.output_file import check_output_folder
from tools.predict.ensemble import load_ensemble

ARRAY = "images.npy"
MIN_SAMPLES = 100  # as in params.yaml


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, required=True, metavar="DATA", help="folder, or CSV table")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, metavar="FILE.csv", help="probabilities of anybody's network")
    source.add_argument("--model", nargs="+", type=Path, metavar="FILE", help="model files, averaged")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="receives metrics and report")
    parser.add_argument("--logits", action="store_true", help="the values of --predictions are logits")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: that of DATA)")
    parser.add_argument("--experts", type=Path, metavar="DIR", help="radiologists' labels (default: those with DATA)")
    parser.add_argument("--list", choices=LISTS, help="only images of this list of the official split")
    parser.add_argument(
        "--patients",
        choices=("check", "exclude", "other"),
        default="check",
        help="patients with numbers of the training data: refuse (default), leave out, or state that they are others",
    )
    parser.add_argument("--decisions", type=Path, default=DECISIONS, metavar="FILE", help=f"default: {DECISIONS}")
    parser.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="P",
        help=f"threshold of all classes if there are no decisions (default: {DEFAULT_THRESHOLD})",
    )
    parser.add_argument(
        "--bootstrap-samples", type=int, default=1000, metavar="N", help="bootstrap samples of patients (default: 1000)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a batch (default: 32)")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Check for errors that would otherwise occur only after the predictions.

    Raises:
        InputError: if an option has an impossible value, or the output would replace another folder.
    """
    if args.bootstrap_samples < MIN_SAMPLES:
        raise InputError(f"--bootstrap-samples {args.bootstrap_samples}: must be at least {MIN_SAMPLES}")
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size}: must be at least 1")
    if not 0 < args.threshold < 1:
        raise InputError(f"--threshold {args.threshold:g}: must be between 0 and 1")
    if args.model and args.logits:
        raise InputError("--logits is for --predictions; model files have a fixed output")
    if args.decisions != DECISIONS and not args.decisions.is_file():
        raise InputError(f"--decisions {args.decisions}: there is no such file")
    if args.experts and not args.experts.is_dir():
        raise InputError(f"--experts {args.experts}: there is no such folder")
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output}: this is a file; give a folder")
    if args.output.is_dir() and any(args.output.iterdir()) and not (args.output / EXTERNAL).is_file():
        raise InputError(f"--output {args.output}: this folder has other files; give a new folder")
    check_output_folder("--output", args.output.absolute().parent)


def main() -> None:
    """Evaluate and write the results.

    Raises:
        InputError: if an argument or a file is wrong, or at the end, if images cannot be read.
    """
    args = command_line().parse_args()
    check_arguments(args)
    labels = select_list(read_labels(args.labels), args.list)
    settings = Settings(args.bootstrap_samples, args.batch_size, args.experts)
    with atomic_write(args.output.absolute()) as folder:
        folder.mkdir()
        source, labels, failures = make_source(args, labels, folder / ARRAY)
        metrics = measure(source, labels, settings)
        write_results(make_run(source, labels, metrics, settings), metrics, folder)
        (folder / ARRAY).unlink(missing_ok=True)
    for note in metrics.external.notes:
        warn(note)
    auroc = metrics.intervals.auroc
    print(
        f"{args.output}: mean AUROC of the 14 findings {format_ci(auroc['mean_14'], 4)}, "
        f"{metrics.test.test_images:,} images of {metrics.intervals.patients:,} patients"
    )
    if failures:
        raise InputError(f"{failures:,} images cannot be read and are left out: see the warnings above")


def select_list(labels: LabelSet, name: str | None) -> LabelSet:
    """Return the images in a list of the official split, all images without a `name`.

    Raises:
        InputError: if no image is in it.
    """
    if name is None:
        return labels
    listed = labels.official.loc[labels.official["list"] == name, "image"]
    table = labels.table[labels.table["image"].isin(listed)].reset_index(drop=True)
    if table.empty:
        raise InputError(f"--list {name}: {labels.name} has no image in such a list; leave out --list")
    return labels._replace(table=table)


def make_source(args: argparse.Namespace, labels: LabelSet, array: Path) -> tuple[PredictionSource, LabelSet, int]:
    """Return what is measured, the labels of the images in it, and the number of images that cannot be read."""
    if args.predictions:
        return read_source(args.predictions, labels, args.threshold, is_logits=args.logits), labels, 0
    device = init_device(os.cpu_count() or 1, deterministic=True)
    ensemble = load_ensemble(args.model, device, args.decisions)
    labels, leak = check_patients(labels, ensemble, args.patients)
    labels, images, failures = decode_images(labels, args.images or labels.folder, ensemble.image_size, array)
    source = predict_source(ensemble, labels, images, args.threshold, args.batch_size)
    return source._replace(leak=leak), labels, failures
