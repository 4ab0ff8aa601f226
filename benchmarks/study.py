"""Ablation study: the effect of single changes to the classic recipe on the AUROC, by 3-fold cross-validation.

Folds are split by patient, so each image is predicted by networks that were not trained on its patient, and changes are
compared by a paired bootstrap over all patients. The folder of a training run is named after its parameters: finished
runs are reused, also by other changes (TTA, ensembles), and interrupted runs resume. If a change fails, the study goes
on with the next one and lists the failures at the end.

    python -m benchmarks.study                              run all changes, hours on two cores
    python -m benchmarks.study --only short-road no-mixup   run these changes and the baseline
    python -m benchmarks.study --report                     write STUDY.md from the finished runs
    python -m benchmarks.study --list                       list the changes
    python -m benchmarks.study --size 300 --model NAME --output benchmarks/STUDY-300.md
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import study_report
from benchmarks.data import ROOT
from benchmarks.study_changes import (
    BASELINE,
    CHANGES,
    LITE0,
    Change,
    Values,
    baseline_values,
    describe_change,
    params_of,
)
from benchmarks.study_report import FOLDS, ChangeResult, RunRecord, StudyResults
from cxr.core.errors import InputError, run_as_script, warn
from cxr.core.files import atomic_write, remove, write_csv, write_json
from cxr.core.image_array import open_images
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.paths import CHECKPOINTS, IMAGES, IMAGES_DESCRIPTION, SAMPLE, SPLIT, model_file
from cxr.core.tables import SPLITS, read_sample, read_sample_with_split
from cxr.datasets.stratified_split import allocate_sizes, stratified_group_split
from cxr.inference.params import TTA
from cxr.inference.tta import predict_probabilities, tta_views
from cxr.models.classifier import check_model_name
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore
from cxr.models.model_file import load_model, read_description
from cxr.models.weights import pretrained_weights_path
from cxr.training.fingerprint import member_params
from cxr.training.params import TrainParams
from stages.split import check_split

SHARED = ROOT.parent / "shared"
VAL_FRACTION = 0.15
# Written last: it marks a finished run.
RECORD = "training.json"
# A stage's running time is saved at this interval, in seconds, so that a killed study loses no more than that.
TIMER_INTERVAL = 5.0


@dataclass(frozen=True)
class StudyConfig:
    """The folder of all runs, and the parameters of the baseline."""

    folder: Path
    values: Values

    @property
    def data(self) -> Path:
        """The folder for these images at this size; another sample or size has another folder."""
        names = ("raw_dir", "data_seed", "sample", "image_size")
        return self.folder / f"{self.values['image_size']}px-{fingerprint({name: self.values[name] for name in names})}"


class StudyRun(NamedTuple):
    """One network to train on one fold."""

    folder: Path
    params: TrainParams  # with one model and one seed
    fold: int

    @property
    def model_path(self) -> Path:
        """The file of the trained network."""
        return self.folder / model_file(self.params.models[0], self.params.seeds[0])


def fingerprint(value: Values) -> str:
    """Return the first 12 hex digits of the SHA-256 hash of `value`."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def study_runs(study: StudyConfig, change: Change) -> list[StudyRun]:
    """Return the runs of `change`: one for each model, seed and fold."""
    params = params_of(change, study.values)
    shared = {name: getattr(params, name) for name in TrainParams.model_fields}
    runs = []
    for model in params.models:
        for seed in params.seeds:
            one = TrainParams.model_validate({**shared, "models": [model], "seeds": [seed]})
            name = f"{model}-{seed}-{fingerprint(member_params(one))}"
            runs += [StudyRun(study.data / f"fold-{fold}" / name, one, fold) for fold in range(FOLDS)]
    return runs


def make_data(study: StudyConfig) -> None:
    """Run sample and resize and split the folds, unless their outputs exist."""
    write_values(study.values, study.data)
    for stage, output in (("sample", SAMPLE), ("resize", IMAGES_DESCRIPTION)):
        if not (study.data / output).is_file():
            run_timed_stage(stage, study.data)
    sample = read_sample(study.data / SAMPLE)
    folds = assign_patients(sample, [1 / FOLDS] * FOLDS, study.values["data_seed"])
    for fold in range(FOLDS):
        path = study.data / f"fold-{fold}" / SPLIT
        if not path.is_file():
            write_csv(split_of_fold(sample, folds == fold, study.values["data_seed"]), path)


def assign_patients(sample: pd.DataFrame, fractions: list[float], seed: int) -> NDArray[np.int64]:
    """Split the images by patient into parts with `fractions` of them; return each image's part, int [images]."""
    return stratified_group_split(
        sample["patient"].to_numpy(), label_matrix(sample), allocate_sizes(fractions, len(sample)), seed
    )


def split_of_fold(sample: pd.DataFrame, in_test: NDArray[np.bool_], seed: int) -> pd.DataFrame:
    """Return the table of the stage split for one fold: the fold as test, and some of the other patients as val.

    Raises:
        InputError: if there are too few images.
    """
    split = pd.Series("test", index=sample.index)
    others = sample[~in_test]
    split[others.index] = np.array(SPLITS)[assign_patients(others, [1 - VAL_FRACTION, VAL_FRACTION], seed)]
    check_split(sample, split)
    return sample[["image", "patient"]].assign(split=split)


def write_values(values: Values, folder: Path) -> None:
    """Write `values` to `params.yaml` in `folder`."""
    with atomic_write(folder / "params.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def run_timed_stage(stage: str, folder: Path) -> None:
    """Run `python -m stages.STAGE` in `folder`; append its output to `STAGE.log`, add its time to `STAGE.json`.

    Raises:
        InputError: if the stage fails, with its last line of output.
    """
    log, before, start = folder / f"{stage}.log", seconds_of(stage, folder), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"stages.{stage}"]
    with (
        log.open("a", encoding="utf-8") as output,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(TIMER_INTERVAL)
                write_json({"seconds": before + time.perf_counter() - start}, folder / f"{stage}.json")
        finally:
            process.terminate()  # no stage may outlive a study that is interrupted
    if process.returncode:
        last_line = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise InputError(f"{stage} failed: {last_line.removeprefix('error: ')} (the whole output is in {log})")


def seconds_of(stage: str, folder: Path) -> float:
    """Return the running time of `stage` in `folder`, summed over interruptions."""
    path = folder / f"{stage}.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else 0.0


def train_run(run: StudyRun, study: StudyConfig) -> None:
    """Train one run, resuming it if it was interrupted; write its record and remove its checkpoints."""
    folder = run.folder
    if not (folder / RECORD).is_file():
        for path in (SAMPLE, IMAGES, IMAGES_DESCRIPTION, SPLIT):
            source = study.data / f"fold-{run.fold}" if path == SPLIT else study.data
            hard_link(source / path, folder / path)
        write_values(study.values | run.params.model_dump(mode="json"), folder)
        run_timed_stage("train", folder)
        write_json(make_record(run)._asdict(), folder / RECORD)
    remove(folder / CHECKPOINTS)


def make_record(run: StudyRun) -> RunRecord:
    """Return the record of a run that has just finished; its checkpoints must still exist."""
    (path,) = (run.folder / CHECKPOINTS).glob("*/depends_on.json")
    dependencies = json.loads(path.read_text(encoding="utf-8"))
    return RunRecord(
        seconds_of("train", run.folder),
        read_description(run.model_path)["best_epoch"],
        dependencies["device"],
        dependencies["libraries"],
        fingerprint(dependencies["code"]),
    )


def hard_link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, replacing it if it exists."""
    with atomic_write(target) as temporary:
        temporary.hardlink_to(source)


def prediction_file(run: StudyRun, tta: TTA) -> Path:
    """Return the path of the probabilities for the fold's test images."""
    return run.folder / f"probabilities-{fingerprint(tta.model_dump())}.npy"


def predict_fold(run: StudyRun, study: StudyConfig, tta: TTA, device: torch.device) -> None:
    """Write the probabilities for the fold's test images, unless the file exists."""
    path = prediction_file(run, tta)
    if path.is_file():
        return
    table = read_sample_with_split(run.folder / SAMPLE, run.folder / SPLIT)
    images = open_images(study.data / IMAGES, list(table["image"]))
    store = ImageStore(images, np.flatnonzero(table["split"] == "test"), device)
    classifier, _ = load_model(run.model_path)
    size = run.params.batch_size
    probabilities = predict_probabilities(classifier.to(device), store, size, tta_views(tta))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, probabilities)


def run_changes(study: StudyConfig, changes: Sequence[Change]) -> list[str]:
    """Train and predict each of `changes` where results are missing; return the names of those that failed."""
    device = init_device(study.values["threads"], study.values["deterministic"])
    failed = []
    # disable=None shows the bar on a terminal only.
    for change in tqdm(changes, "study", disable=None, unit=" changes"):
        try:
            run_change(study, change, device)
        except InputError as error:
            with tqdm.external_write_mode():
                warn(f"{change.name}: {error}")
            failed.append(change.name)
    return failed


def run_change(study: StudyConfig, change: Change, device: torch.device) -> None:
    """Train and predict the runs of `change` that have no results, and print the training time of each."""
    tta = params_of(change, study.values).tta
    for run in study_runs(study, change):
        train_run(run, study)
        predict_fold(run, study, tta, device)
        minutes = seconds_of("train", run.folder) / 60
        with tqdm.external_write_mode():
            print(f"{change.name}, fold {run.fold}: {run.folder.name}, {minutes:.1f} minutes", flush=True)


def read_folds(study: StudyConfig) -> NDArray[np.int64]:
    """Return the fold of each image, int [images].

    Raises:
        InputError: if the folds have not been split yet.
    """
    paths = [study.data / f"fold-{fold}" / SPLIT for fold in range(FOLDS)]
    if not all(path.is_file() for path in paths):
        raise InputError(f"{study.folder} has no data for these options; run without --report first")
    in_test = [(pd.read_csv(path)["split"] == "test").to_numpy() for path in paths]
    return np.argmax(in_test, axis=0)


def read_result(study: StudyConfig, change: Change, folds: NDArray[np.int64]) -> ChangeResult | None:
    """Return the result of a change, its networks' probabilities averaged; None if any of its runs is unfinished."""
    tta, runs = params_of(change, study.values).tta, study_runs(study, change)
    if not all((run.folder / RECORD).is_file() and prediction_file(run, tta).is_file() for run in runs):
        return None
    probabilities = np.empty((len(folds), len(CLASSES)))
    for fold in range(FOLDS):
        of_fold = [np.load(prediction_file(run, tta)) for run in runs if run.fold == fold]
        probabilities[folds == fold] = np.mean(of_fold, axis=0)
    records = [RunRecord(**json.loads((run.folder / RECORD).read_text(encoding="utf-8"))) for run in runs]
    return ChangeResult(change, probabilities, records)


def read_results(study: StudyConfig, changes: Sequence[Change]) -> StudyResults:
    """Return the results of the baseline and of the finished ones of `changes`.

    Raises:
        InputError: if the baseline is unfinished.
    """
    folds, images = read_folds(study), read_sample(study.data / SAMPLE)
    read = {change.name: read_result(study, change, folds) for change in (BASELINE, *changes)}
    results = [result for result in read.values() if result]
    if not read[BASELINE.name]:
        raise InputError(f"{study.folder} has no finished baseline for these options; run without --report first")
    missing = [change for change in changes if not read[change.name]]
    metrics = study_report.change_metrics(results, images, folds, study.values["bootstrap_samples"])
    return StudyResults(study.values, images, results, missing, metrics)


def select_changes(names: Sequence[str]) -> list[Change]:
    """Return the changes with these names, or all changes if `names` is empty.

    Raises:
        InputError: if there is no change of a name.
    """
    known = {change.name: change for change in CHANGES}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "list them with --list"
            raise InputError(f"--only: there is no change {name}; {hint}")
    return [known[name] for name in names] or list(CHANGES)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "study", help="folder of all runs (default: study)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/STUDY.md", help="file of the report")
    parser.add_argument(
        "--raw-dir",
        type=Path,
        default=SHARED / "nih-mini",
        help="folder with the images and tables, in the layout of NIH",
    )
    parser.add_argument(
        "--weights-dir", type=Path, default=SHARED / "weights", help="folder with pretrained weights, MODEL.safetensors"
    )
    parser.add_argument("--size", type=int, default=96, help="image size, pixels (default: 96)")
    parser.add_argument("--model", default=LITE0, help=f"model of the baseline (default: {LITE0})")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the baseline (default: 6)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run these changes and the baseline")
    parser.add_argument("--list", action="store_true", help="list the changes and exit")
    parser.add_argument("--report", action="store_true", help="write the report from the finished runs and exit")
    return parser


def open_study(args: argparse.Namespace) -> StudyConfig:
    """Return the study that the options describe, after checking every change.

    Raises:
        InputError: if images or weights are missing, or the baseline with a change is invalid.
    """
    for option, folder in (("--raw-dir", args.raw_dir), ("--weights-dir", args.weights_dir)):
        if not (args.report or folder.is_dir()):
            raise InputError(f"there is no folder {folder}; set {option}")
    check_model_name(args.model)
    if not args.report:
        pretrained_weights_path(args.model, args.weights_dir)
    values = baseline_values(args.raw_dir, args.weights_dir, args.size, args.model, args.epochs)
    for change in (BASELINE, *CHANGES):
        params_of(change, values)
    return StudyConfig(args.folder.resolve(), values)


def main() -> None:
    """Run the selected changes and write the report of all finished runs."""
    args = command_line().parse_args()
    if args.list:
        print("\n".join(map(describe_change, CHANGES)))
        return
    changes, study, failed = select_changes(args.only), open_study(args), []
    if not args.report:
        make_data(study)
        failed = run_changes(study, [BASELINE, *changes])
    study_report.write_report(read_results(study, CHANGES), args.output)
    if failed:
        raise InputError(f"these changes failed, see the warnings above: {', '.join(failed)}")


if __name__ == "__main__":
    # SIGTERM interrupts the study like Ctrl-C, so that the stage in progress is stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_as_script(main)
