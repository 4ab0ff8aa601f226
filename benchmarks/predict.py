"""Predicting 1,000 images of the demo from their files, beside what evaluate does with the same images.

Evaluate reads pixels that resize has packed, so there are two things to compare with: its bare pass over the array, and
resize and that pass together, which is the same work as predict's. These are timed within one process. The whole
commands follow, with Python's start; that of evaluate measures, draws and reports as well. The network is the demo's,
and what predict says is held to evaluate's predictions first.

Run: `python -m benchmarks.predict` (8 minutes) in a checkout that has `data/models`; with `--originals` the images are
    71 gray ones of NIH's of 1024 x 1024 pixels, which take longer to decode.
"""

import os

# Before PyTorch loads, as evaluate and predict do it: threads that wait must sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from benchmarks.data import ORIGINALS, ROOT, sample_table, write_params
from benchmarks.timing import Candidates, Turn, show_machine, take_turns
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.core.paths import IMAGES, MODELS, PREDICTIONS
from cxr.evaluation.calibration import Calibration
from cxr.evaluation.params import EvaluateParams
from cxr.inference.ensemble import load_members, predict_members
from cxr.inference.tta import tta_views
from cxr.models.classifier import Architecture
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore, open_images
from cxr.models.members import list_members
from cxr.models.model_file import load_model, save_model
from stages import resize
from tools.predict.ensemble import load_ensemble
from tools.predict.predicting import Answer, predict_files

WAYS = ("evaluate's pass over the array", "resize, and that pass", "predict, from files")
COMMANDS = ("python -m stages.evaluate", "python -m tools.predict raw/images --csv FILE")


def main() -> None:
    """Time the passes, then the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way has its turn")
    parser.add_argument("--originals", action="store_true", help="NIH's own files of 1024 x 1024 pixels")
    arguments = parser.parse_args()
    files = gray_originals() if arguments.originals else sorted((ROOT / "data/demo/images").glob("*.png"))[:1000]
    show_machine(("torch", "timm", "numba"))
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        lay_out(Path(), files)
        for stage in ("resize", "evaluate"):
            run_module(f"stages.{stage}")
        names = [str(path) for path in sorted(Path("raw/images").iterdir())]
        say_whether_alike(answers(names))
        show("One process", take_turns(passes(names), arguments.rounds), len(files), WAYS[-1])
        show("Whole commands", take_turns(commands(), arguments.rounds), len(files), COMMANDS[-1])


def gray_originals() -> list[Path]:
    """Those of NIH's files at hand that are gray, as all but 519 of 112,120 are."""
    return [path for path in sorted(ORIGINALS.glob("*.png")) if path.read_bytes()[25] == 0]


def lay_out(folder: Path, files: Sequence[Path]) -> None:
    """Write what resize and evaluate read: links to `files`, random labels, half of the patients in test."""
    table, models = sample_table(len(files)), folder / MODELS
    (folder / "raw/images").mkdir(parents=True)
    models.mkdir(parents=True)
    for name, file in zip(table["image"], files, strict=True):
        (folder / "raw/images" / name).symlink_to(file)
    table.to_csv(folder / "data/sample.csv", index=False)
    split = np.where(table["patient"] % 2, "val", "test")
    table[["image", "patient"]].assign(split=split).to_csv(folder / "data/split.csv", index=False)
    (folder / "data/curves.csv").symlink_to(ROOT / "data/curves.csv")
    for model in (ROOT / MODELS).iterdir():
        forget_patients(model, models / model.name)
    write_params(folder, ROOT / "params.yaml", raw_dir="raw")


def forget_patients(model: Path, copy: Path) -> None:
    """Copy a network's file without the patients that it has seen, whose images evaluate would not measure."""
    classifier, about = load_model(model)
    architecture = Architecture(**{name: about[name] for name in Architecture._fields})
    save_model(classifier, architecture, {**about, "patients": []}, copy)


def passes(names: Sequence[str]) -> Candidates:
    """The three ways, each on all images."""
    params = read_params(EvaluateParams)
    device = init_device(params.threads, params.deterministic)

    def over_array() -> None:
        images = open_images(IMAGES, len(names))
        members = load_members(list_members(params.models, params.seeds), images.shape[1], device)
        store = ImageStore(images, np.arange(len(names)), device)
        predict_members(members, store, params.batch_size, tta_views(params.tta))

    def resized_before() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            resize.main()
        over_array()

    return dict(zip(WAYS, (over_array, resized_before, lambda: answers(names)), strict=True))


def answers(names: Sequence[str]) -> list[Answer]:
    """What predict says of the images, its networks read first, as `predict_members` does it."""
    params = read_params(EvaluateParams)
    ensemble = load_ensemble([], init_device(params.threads, params.deterministic))
    found = predict_files([Path(name) for name in names], ensemble, params.batch_size)
    return [answer for answer in found if isinstance(answer, Answer)]


def say_whether_alike(said: Sequence[Answer]) -> None:
    """Print by how much predict's probabilities differ from those that evaluate wrote, calibrated, at most."""
    written = pd.read_csv(PREDICTIONS).sort_values("image")[list(CLASSES)].to_numpy()
    decisions = load_ensemble([], init_device(1, deterministic=True)).decisions
    assert decisions is not None
    expected = Calibration.apply(decisions.calibration, written)
    largest = np.abs(np.array([answer.probabilities for answer in said]) - expected).max()
    print(f"predict differs from evaluate by {largest:.1e} at most, over {len(said):,} images")


def commands() -> Candidates:
    """Both commands as processes of their own."""
    words: tuple[tuple[str, ...], ...] = (("stages.evaluate",), ("tools.predict", "raw/images", "--csv", "said.csv"))
    return {name: module_run(*of_one) for name, of_one in zip(COMMANDS, words, strict=True)}


def module_run(*words: str) -> Callable[[], None]:
    """A turn of `run_module`."""
    return lambda: run_module(*words)


def run_module(*words: str) -> None:
    """Run `python -m` with these words, in silence."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", *words], env=environment, check=True, capture_output=True)


def show(title: str, turns: dict[str, list[Turn]], count: int, ours: str) -> None:
    """Print a row of a Markdown table for each way: seconds, and how fast `ours` is beside it, round by round."""
    print(f"\n{title} (n = {len(turns[ours])} rounds of {count:,} images)\n")
    print("| way | s, median (min-max) | processor's s | predict is as fast, by time | by processor's time |")
    print("| --- | --- | --- | --- | --- |")
    for name, of_one in turns.items():
        cells = [in_words([turn[clock] for turn in of_one], ".2f") for clock in (0, 1)]
        pairs = list(zip(of_one, turns[ours], strict=True))
        cells += [in_words([theirs[clock] / own[clock] for theirs, own in pairs], ".0%") for clock in (0, 1)]
        print(f"| {name} | {' | '.join(cells)} |")


def in_words(values: Sequence[float], form: str) -> str:
    """Median, and in brackets the smallest and the largest."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


if __name__ == "__main__":
    main()
