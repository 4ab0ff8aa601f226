"""Predict your own images: PNG, JPEG or DICOM; files, folders or patterns.

    python -m tools.predict chest.png                        a table of the 15 classes
    python -m tools.predict films/ 'more/**/*.dcm'           many: a line each
    python -m tools.predict films/ --csv answers.csv         every digit, into a table
    python -m tools.predict chest.png --heatmaps maps        where the networks see it
    python -m tools.predict chest.png --model a.safetensors b.safetensors

Takes the networks in data/models/ with the calibration, thresholds and views that data/decisions.json has for them, and
the mean of their probabilities. --model takes others, which describe themselves; without decisions for exactly these
the probabilities are not calibrated, and nothing is called.

Pictures are prepared as in training, by the same functions. 16-bit PNGs keep the highest eight bits in use; JPEGs are
turned as their camera's orientation says; DICOM files, which need `pip install -r requirements-predict.txt`, are shown
as their rescale, window and MONOCHROME1 say. A picture that is plainly no frontal chest X-ray (colour, odd proportions,
inverted, another layout) is flagged, and predicted all the same. A file that cannot be read is named, the others go on,
and the exit code is 1.

Not for clinical use.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from cxr.core.errors import InputError, warn
from cxr.core.files import write_csv, write_json
from cxr.core.labels import CLASSES
from cxr.models.device import init_device
from tools.predict.ensemble import Ensemble, load_ensemble
from tools.predict.output import as_json, as_table, closing, in_a_line, in_full, width_of
from tools.predict.overlays import Overlays
from tools.predict.predicting import Answer, HeatMaps, predict_files
from tools.predict.reading import Failure
from tools.predict.sources import find_files

FEW = 4  # images whose 15 classes are all printed


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="FILE", help="an image, a folder, or a pattern in quotes")
    parser.add_argument(
        "--model", nargs="+", type=Path, default=[], metavar="FILE", help="these networks' files; name the images first"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table, and print none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON, and print no table")
    parser.add_argument("--heatmaps", type=Path, metavar="DIR", help="write heat maps of what is called, as PNG")
    parser.add_argument("--class", dest="only", choices=CLASSES, metavar="NAME", help="heat maps of this class only")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images at once (default: 32)")
    return parser


def check(asked: argparse.Namespace, files: Sequence[Path]) -> None:
    """Refuse what could not be done at the end, before any work."""
    if asked.batch_size < 1:
        raise InputError(f"--batch-size {asked.batch_size}: at least one image at once")
    if asked.only and not asked.heatmaps:
        raise InputError(f"--class {asked.only}: it chooses heat maps; name their folder with --heatmaps DIR")
    inputs = {file.resolve() for file in files}
    for option, path in (("--csv", asked.csv), ("--json", asked.json)):
        if path and (path.is_dir() or path.resolve() in inputs):
            what = "a folder" if path.is_dir() else "one of the images"
            raise InputError(f"{option} {path}: that is {what}; name another file")


def main() -> None:
    """Predict, say it in the form that was asked for, and fail at the end where a file did."""
    asked = command_line().parse_args()
    files = find_files(asked.words)
    check(asked, files)
    heat_maps = HeatMaps(Overlays(asked.heatmaps, files), asked.only) if asked.heatmaps else None
    ensemble = load_ensemble(asked.model, init_device(os.cpu_count() or 1, deterministic=True))
    if asked.only in ensemble.untrained:
        raise InputError(f"--class {asked.only}: the networks have not learned it, so there is nothing to see")
    found = predict_files(files, ensemble, asked.batch_size, heat_maps)
    answers, failures = collect(found, files, ensemble, is_printed=not (asked.csv or asked.json))
    if asked.csv:
        write_csv(as_table(answers), asked.csv)
    if asked.json:
        write_json(as_json(answers, failures, ensemble), asked.json)
    print(closing(answers, failures, ensemble))
    if failures:
        raise InputError(f"{len(failures):,} of {len(files):,} files cannot be read: see the warnings above")


def collect(
    found: Iterator[Answer | Failure], files: Sequence[Path], ensemble: Ensemble, *, is_printed: bool
) -> tuple[list[Answer], list[Failure]]:
    """All answers and failures; failures are named as they come, and answers printed if they are to be."""
    answers, failures, width = [], [], width_of(files)
    # disable=None: a bar where a terminal watches, nothing where none does; what is said goes above it.
    for item in tqdm(found, "predict", len(files), disable=None, leave=not is_printed, unit=" images"):
        if isinstance(item, Failure):
            failures.append(item)
            with tqdm.external_write_mode():
                warn(f"{item.file}: {item.reason}")
        else:
            answers.append(item)
            if is_printed:
                tqdm.write(in_full(item, ensemble) if len(files) <= FEW else in_a_line(item, ensemble, width))
    return answers, failures
