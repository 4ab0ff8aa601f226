"""Which changes to the classic recipe move the AUROC on real images: one change at a time, on three folds by patient.

Every image is predicted once, by networks that did not see its patient, so the paired bootstrap over patients speaks
over all of them. A training is named by its parameters: what is there is not trained again, a stopped one goes on, and
changes that share trainings (views, ensembles) share them. One that fails is named at the end, and the others go on.

    python -m benchmarks.study                              all changes, hours on two cores; run it in the background
    python -m benchmarks.study --only short-road no-mixup   these, and the baseline
    python -m benchmarks.study --report                     write STUDY.md from what is there
    python -m benchmarks.study --list                       the changes
    python -m benchmarks.study --size 300 --model NAME --output benchmarks/STUDY-300.md
"""

import os

# As the stages do it, before PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
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
from benchmarks.study_changes import BASELINE, CHANGES, LITE0, Change, Values, baseline_values, described, params_of
from benchmarks.study_report import FOLDS, Found, Result, Trained
from cxr.core.errors import InputError, run_as_script, warn
from cxr.core.files import atomic_write, remove, write_csv, write_json
from cxr.core.labels import CLASSES
from cxr.core.paths import CHECKPOINTS, IMAGES, SAMPLE, SPLIT, model_file
from cxr.core.tables import SPLITS, label_matrix, read_sample, read_sample_with_split
from cxr.datasets.stratified_split import allocate_sizes, stratified_group_split
from cxr.inference.params import TTA
from cxr.inference.tta import predict_probabilities, tta_views
from cxr.models.classifier import check_model_name
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore, open_images
from cxr.models.model_file import load_model, read_description
from cxr.models.weights import weights_file
from cxr.training.params import TrainParams
from stages.split import check
from stages.train import member_params

SHARED = ROOT.parent / "shared"
VAL_SHARE = 0.15
# Written last: a training that has it is finished.
RECORD = "training.json"
# How often the time of a running stage is written down: a killed study loses no more of it.
SECONDS_BETWEEN_NOTES = 5.0


@dataclass(frozen=True)
class Study:
    """The folder that all work is kept in, and the baseline's parameters."""

    folder: Path
    values: Values

    @property
    def data(self) -> Path:
        """The folder of these images at this size: what was trained on others is never mixed in."""
        names = ("raw_dir", "data_seed", "sample", "image_size")
        return self.folder / f"{self.values['image_size']}px-{fingerprint({name: self.values[name] for name in names})}"


class Training(NamedTuple):
    """One network to train on one fold."""

    folder: Path
    params: TrainParams  # of this model and seed alone
    fold: int

    @property
    def network(self) -> Path:
        """The file of the trained network."""
        return self.folder / model_file(self.params.models[0], self.params.seeds[0])


def fingerprint(value: Values) -> str:
    """A short name of `value` that another value does not have."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def trainings(study: Study, change: Change) -> list[Training]:
    """The models x seeds of `change` in each fold."""
    params = params_of(change, study.values)
    shared = {name: getattr(params, name) for name in TrainParams.model_fields}
    found = []
    for model in params.models:
        for seed in params.seeds:
            one = TrainParams.model_validate({**shared, "models": [model], "seeds": [seed]})
            name = f"{model}-{seed}-{fingerprint(member_params(one))}"
            found += [Training(study.data / f"fold-{fold}" / name, one, fold) for fold in range(FOLDS)]
    return found


def make_data(study: Study) -> None:
    """Run sample and resize, and deal the folds, where that is not done."""
    write_params(study.values, study.data)
    for stage, output in (("sample", SAMPLE), ("resize", IMAGES)):
        if not (study.data / output).is_file():
            run_stage(stage, study.data)
    sample = read_sample(study.data / SAMPLE)
    folds = deal_evenly(sample, [1 / FOLDS] * FOLDS, study.values["data_seed"])
    for fold in range(FOLDS):
        path = study.data / f"fold-{fold}" / SPLIT
        if not path.is_file():
            write_csv(split_of_fold(sample, folds == fold, study.values["data_seed"]), path)


def deal_evenly(sample: pd.DataFrame, shares: list[float], seed: int) -> NDArray[np.int64]:
    """Deal whole patients into bins of `shares` of the images; the bin of each image, int [images]."""
    return stratified_group_split(
        sample["patient"].to_numpy(), label_matrix(sample), allocate_sizes(shares, len(sample)), seed
    )


def split_of_fold(sample: pd.DataFrame, in_test: NDArray[np.bool_], seed: int) -> pd.DataFrame:
    """A table as the stage split writes it: the fold in test, part of the other patients in val.

    Raises:
        InputError: where the images are too few for that.
    """
    split = pd.Series("test", index=sample.index)
    others = sample[~in_test]
    split[others.index] = np.array(SPLITS)[deal_evenly(others, [1 - VAL_SHARE, VAL_SHARE], seed)]
    check(sample, split)
    return sample[["image", "patient"]].assign(split=split)


def write_params(values: Values, folder: Path) -> None:
    """Write `values` as the folder's `params.yaml`."""
    with atomic_write(folder / "params.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def run_stage(stage: str, folder: Path) -> None:
    """Run `python -m stages.STAGE` in `folder`; its output goes to `STAGE.log`, its time is added to `STAGE.json`.

    Raises:
        InputError: where it fails, with what it said last.
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
                    process.wait(SECONDS_BETWEEN_NOTES)
                write_json({"seconds": before + time.perf_counter() - start}, folder / f"{stage}.json")
        finally:
            process.terminate()  # where the study itself is stopped: a stage left behind would train on unseen
    if process.returncode:
        said = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise InputError(f"{stage} failed: {said.removeprefix('error: ')} (all that it said is in {log})")


def seconds_of(stage: str, folder: Path) -> float:
    """How long `stage` has run in `folder`, over all of its interruptions."""
    path = folder / f"{stage}.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else 0.0


def train(training: Training, study: Study) -> None:
    """Train to the end, from where it stopped; then drop the checkpoints, and write the record."""
    folder = training.folder
    if not (folder / RECORD).is_file():
        for path in (SAMPLE, IMAGES, SPLIT):
            place = study.data / f"fold-{training.fold}" if path == SPLIT else study.data
            link(place / path, folder / path)
        write_params(study.values | training.params.model_dump(mode="json"), folder)
        run_stage("train", folder)
        write_json(record(training)._asdict(), folder / RECORD)
    remove(folder / CHECKPOINTS)


def record(training: Training) -> Trained:
    """What a training came to that has just ended, and what the stage itself says that it rests on."""
    (path,) = (training.folder / CHECKPOINTS).glob("*/depends_on.json")
    rests_on = json.loads(path.read_text(encoding="utf-8"))
    return Trained(
        seconds_of("train", training.folder),
        read_description(training.network)["best_epoch"],
        rests_on["device"],
        rests_on["libraries"],
        fingerprint(rests_on["code"]),
    )


def link(source: Path, target: Path) -> None:
    """Make `target` a second name of the file `source`."""
    with atomic_write(target) as temporary:
        temporary.hardlink_to(source)


def prediction_file(training: Training, views: TTA) -> Path:
    """Where the probabilities of the fold's test images lie."""
    return training.folder / f"probabilities-{fingerprint(views.model_dump())}.npy"


def predict_fold(training: Training, study: Study, views: TTA, device: torch.device) -> None:
    """Predict the fold's test images, where that is not done."""
    path = prediction_file(training, views)
    if path.is_file():
        return
    table = read_sample_with_split(training.folder / SAMPLE, training.folder / SPLIT)
    images = open_images(study.data / IMAGES, len(table))
    pixels = ImageStore(images, np.flatnonzero(table["split"] == "test"), device)
    classifier, _ = load_model(training.network)
    size = training.params.batch_size
    probabilities = predict_probabilities(classifier.to(device), pixels, size, tta_views(views))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, probabilities)


def run(study: Study, changes: Sequence[Change]) -> list[str]:
    """Train and predict what is missing of `changes`; returns the names of those that failed."""
    device = init_device(study.values["threads"], study.values["deterministic"])
    failed = []
    # disable=None: a bar where a terminal watches, nothing where none does; what is said goes above it.
    for change in tqdm(changes, "study", disable=None, unit=" changes"):
        try:
            run_change(study, change, device)
        except InputError as error:
            with tqdm.external_write_mode():
                warn(f"{change.name}: {error}")
            failed.append(change.name)
    return failed


def run_change(study: Study, change: Change, device: torch.device) -> None:
    """Train and predict what is missing of `change`, and say how long each training took."""
    views = params_of(change, study.values).tta
    for training in trainings(study, change):
        train(training, study)
        predict_fold(training, study, views, device)
        minutes = seconds_of("train", training.folder) / 60
        with tqdm.external_write_mode():
            print(f"{change.name}, fold {training.fold}: {training.folder.name}, {minutes:.1f} minutes", flush=True)


def read_folds(study: Study) -> NDArray[np.int64]:
    """The fold of each image, int [images]; InputError where no data has been made."""
    paths = [study.data / f"fold-{fold}" / SPLIT for fold in range(FOLDS)]
    if not all(path.is_file() for path in paths):
        raise InputError(f"{study.folder} has no data of this setting: run without --report first")
    in_test = [(pd.read_csv(path)["split"] == "test").to_numpy() for path in paths]
    return np.argmax(in_test, axis=0)


def read_result(study: Study, change: Change, folds: NDArray[np.int64]) -> Result | None:
    """What a change came to, its networks' probabilities averaged; None where it has not been run to its end."""
    views, found = params_of(change, study.values).tta, trainings(study, change)
    if not all((each.folder / RECORD).is_file() and prediction_file(each, views).is_file() for each in found):
        return None
    probabilities = np.empty((len(folds), len(CLASSES)))
    for fold in range(FOLDS):
        ours = [np.load(prediction_file(each, views)) for each in found if each.fold == fold]
        probabilities[folds == fold] = np.mean(ours, axis=0)
    trained = [Trained(**json.loads((each.folder / RECORD).read_text(encoding="utf-8"))) for each in found]
    return Result(change, probabilities, trained)


def read_found(study: Study, changes: Sequence[Change]) -> Found:
    """Measure all of `changes` that have been run, and the baseline.

    Raises:
        InputError: where the baseline has not been run.
    """
    folds, images = read_folds(study), read_sample(study.data / SAMPLE)
    read = {change.name: read_result(study, change, folds) for change in (BASELINE, *changes)}
    results = [result for result in read.values() if result]
    if not read[BASELINE.name]:
        raise InputError(f"{study.folder} has no finished baseline of this setting to compare with: run it first")
    missing = [change for change in changes if not read[change.name]]
    figures = study_report.measure(results, images, folds, study.values["bootstrap_samples"])
    return Found(study.values, images, results, missing, figures)


def choose(names: Sequence[str]) -> list[Change]:
    """The changes of these names, all where there are none; InputError for a name that is not known."""
    known = {change.name: change for change in CHANGES}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "--list shows them"
            raise InputError(f"--only: there is no change {name}; {hint}")
    return [known[name] for name in names] or list(CHANGES)


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "study", help="where work is kept (default: study)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/STUDY.md", help="where the report goes")
    parser.add_argument("--raw-dir", type=Path, default=SHARED / "nih-mini", help="images and table, in NIH's layout")
    parser.add_argument("--weights-dir", type=Path, default=SHARED / "weights", help="folder of MODEL.safetensors")
    parser.add_argument("--size", type=int, default=96, help="side of the images, pixels (default: 96)")
    parser.add_argument("--model", default=LITE0, help=f"the baseline's network (default: {LITE0})")
    parser.add_argument("--epochs", type=int, default=6, help="of the baseline (default: 6)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these changes, and the baseline")
    parser.add_argument("--list", action="store_true", help="list the changes, and do nothing")
    parser.add_argument("--report", action="store_true", help="run nothing, and report what is there")
    return parser


def open_study(asked: argparse.Namespace) -> Study:
    """The study that was asked for, each of its changes checked before any work.

    Raises:
        InputError: where images or weights are missing, or a change cannot be made to this baseline.
    """
    for option, folder in (("--raw-dir", asked.raw_dir), ("--weights-dir", asked.weights_dir)):
        if not (asked.report or folder.is_dir()):
            raise InputError(f"there is no folder {folder}; name one with {option}")
    check_model_name(asked.model)
    if not asked.report:
        weights_file(asked.model, asked.weights_dir)
    values = baseline_values(asked.raw_dir, asked.weights_dir, asked.size, asked.model, asked.epochs)
    for change in (BASELINE, *CHANGES):
        params_of(change, values)
    return Study(asked.folder.resolve(), values)


def main() -> None:
    """Run what was asked for, and report all that is there."""
    asked = command_line().parse_args()
    if asked.list:
        print("\n".join(map(described, CHANGES)))
        return
    chosen, study, failed = choose(asked.only), open_study(asked), []
    if not asked.report:
        make_data(study)
        failed = run(study, [BASELINE, *chosen])
    study_report.write(read_found(study, CHANGES), asked.output)
    if failed:
        raise InputError(f"these failed, for the reasons above: {', '.join(failed)}")


if __name__ == "__main__":
    # `kill` ends the study as Ctrl-C does: with the stage that it runs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_as_script(main)
