"""Time to predict 1,000 image files of the demo with `tools.predict`, compared with the stage evaluate.

Evaluate reads images that resize has already packed into an array. Within one process, predict is therefore compared
with evaluate's predictions from the array, and with resize followed by these predictions, which is the same work.
Then the complete commands are timed; evaluate's also computes metrics and writes plots and the report. First, the
predictions of both are compared.

Run: `python -m benchmarks.predict` (8 minutes) in a checkout with `data/models`. With `--originals`, the images are
    the 71 gray originals of NIH with 1024 x 1024 pixels, which take longer to decode.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from benchmarks.data import ORIGINALS, ROOT, is_gray, sample_table, write_params
from benchmarks.timing import Candidates, Measurement, measure_alternating, print_machine
from cxr.core.image_array import open_images
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.core.paths import IMAGES, MODELS, PREDICTIONS
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.params import EvaluateParams
from cxr.inference.ensemble import load_members, predict_members
from cxr.inference.tta import tta_views
from cxr.models.classifier import Architecture
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore
from cxr.models.members import list_members
from cxr.models.model_file import load_model, save_model
from stages import resize
from tools.predict.ensemble import load_ensemble
from tools.predict.predicting import Prediction, predict_files

METHODS = ("evaluate's predictions from the array", "resize and these predictions", "predict, from files")
COMMANDS = ("python -m stages.evaluate", "python -m tools.predict raw/images --csv FILE")


def main() -> None:
    """Time the predictions in this process, then the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of timed rounds")
    parser.add_argument("--originals", action="store_true", help="use the originals of NIH, 1024 x 1024 pixels")
    args = parser.parse_args()
    files = gray_originals() if args.originals else sorted((ROOT / "data/demo/images").glob("*.png"))[:1000]
    print_machine(("torch", "timm", "numba"))
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        write_predict_project(Path(), files)
        for stage in ("resize", "evaluate"):
            run_module(f"stages.{stage}")
        names = [str(path) for path in sorted(Path("raw/images").iterdir())]
        print_difference(predict(names))
        methods = measure_alternating(method_candidates(names), args.rounds)
        print_measurements("One process", methods, len(files), METHODS[-1])
        commands = measure_alternating(command_candidates(), args.rounds)
        print_measurements("Commands", commands, len(files), COMMANDS[-1])


def gray_originals() -> list[Path]:
    """Return the originals of NIH that are grayscale, as all but 519 of 112,120 are."""
    return [path for path in sorted(ORIGINALS.glob("*.png")) if is_gray(path.read_bytes())]


def write_predict_project(folder: Path, files: Sequence[Path]) -> None:
    """Write the inputs of resize and evaluate: links to `files`, random labels, half of the patients in test."""
    table, models = sample_table(len(files)), folder / MODELS
    (folder / "raw/images").mkdir(parents=True)
    models.mkdir(parents=True)
    for name, file in zip(table["image"], files, strict=True):
        (folder / "raw/images" / name).symlink_to(file)
    table.to_csv(folder / "data/sample.csv", index=False)
    split = np.where(table["patient"] % 2, "val", "test")
    split[table["patient"] == 0] = "train"
    table[["image", "patient"]].assign(split=split).to_csv(folder / "data/split.csv", index=False)
    (folder / "data/official.csv").write_text("image,list\n", encoding="utf-8")
    (folder / "data/curves.csv").symlink_to(ROOT / "data/curves.csv")
    for model in (ROOT / MODELS).iterdir():
        copy_without_patients(model, models / model.name)
    write_params(folder, ROOT / "params.yaml", raw_dir="raw")


def copy_without_patients(model: Path, copy: Path) -> None:
    """Copy a model file without its list of training patients, whom evaluate would refuse in test."""
    classifier, description = load_model(model)
    architecture = Architecture(**{name: description[name] for name in Architecture._fields})
    save_model(classifier, architecture, {**description, "patients": []}, copy)


def method_candidates(names: Sequence[str]) -> Candidates:
    """Return the methods, each of which predicts all images."""
    params = read_params(EvaluateParams)
    device = init_device(params.threads, params.deterministic)

    def predict_array() -> None:
        images = open_images(IMAGES, [Path(name).name for name in names])
        members = load_members(list_members(params.models, params.seeds), images.shape[1], device)
        store = ImageStore(images, np.arange(len(names)), device)
        predict_members(members, store, params.batch_size, tta_views(params.tta))

    def resize_and_predict_array() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            resize.main()
        predict_array()

    return dict(zip(METHODS, (predict_array, resize_and_predict_array, lambda: predict(names)), strict=True))


def predict(names: Sequence[str]) -> list[Prediction]:
    """Load the ensemble and predict the images, as `tools.predict` does."""
    params = read_params(EvaluateParams)
    ensemble = load_ensemble([], init_device(params.threads, params.deterministic))
    results = predict_files([Path(name) for name in names], ensemble, params.batch_size)
    return [result for result in results if isinstance(result, Prediction)]


def print_difference(predictions: Sequence[Prediction]) -> None:
    """Print the largest difference from the calibrated probabilities of evaluate."""
    uncalibrated = pd.read_csv(PREDICTIONS).sort_values("image")[list(CLASSES)].to_numpy()
    decisions = load_ensemble([], init_device(1, deterministic=True)).decisions
    assert decisions is not None
    expected = Calibration.apply(decisions.calibration, uncalibrated)
    largest = np.abs(np.array([prediction.probabilities for prediction in predictions]) - expected).max()
    print(f"largest difference between predict and evaluate: {largest:.1e}, of {len(predictions):,} images")


def command_candidates() -> Candidates:
    """Return functions that run the commands."""

    def candidate(*arguments: str) -> Callable[[], None]:
        return lambda: run_module(*arguments)

    evaluate, predict_command = candidate("stages.evaluate"), candidate("tools.predict", "raw/images", "--csv", "p.csv")
    return dict(zip(COMMANDS, (evaluate, predict_command), strict=True))


def run_module(*arguments: str) -> None:
    """Run `python -m` with these arguments, without output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", *arguments], env=environment, check=True, capture_output=True)


def print_measurements(title: str, measurements: dict[str, list[Measurement]], count: int, reference: str) -> None:
    """Print a Markdown table of the times, and of the speed of `reference` relative to each candidate by rounds."""
    print(f"\n{title} (n = {len(measurements[reference])} rounds of {count:,} images)\n")
    print("| method | wall time, s | CPU time, s | relative speed of predict, wall time | CPU time |")
    print("| --- | --- | --- | --- | --- |")
    for name, of_one in measurements.items():
        cells = [summarize([measurement[clock] for measurement in of_one], ".2f") for clock in (0, 1)]
        pairs = list(zip(of_one, measurements[reference], strict=True))
        cells += [summarize([other[clock] / own[clock] for other, own in pairs], ".0%") for clock in (0, 1)]
        print(f"| {name} | {' | '.join(cells)} |")


def summarize(values: Sequence[float], form: str) -> str:
    """Return the median, with the minimum and maximum in parentheses, in a format such as `.2f`."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


if __name__ == "__main__":
    main()
