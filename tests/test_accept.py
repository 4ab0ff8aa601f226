"""Runs of the committed demo that take minutes each; `make accept` runs them."""

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from cxr.core.labels import CLASSES
from cxr.evaluation.metrics import auroc, nanmean
from tests.fixtures.project import commit, copy_project, run

pytestmark = pytest.mark.accept

KILLS = 8
FIRST_EPOCH = re.compile(r"from epoch (\d+)$", re.MULTILINE)  # printed when the training starts
OUTPUTS = ("dvc.lock", "metrics/test.json", "data/curves.csv", "data/predictions.csv")


class Reference(NamedTuple):
    """A project in which the pipeline ran once without interruption."""

    folder: Path
    seconds: float  # that `dvc repro` took


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("twin"))
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = shortened(copy_project(tmp_path_factory.mktemp("short")))
    start = time.monotonic()
    run(folder, "dvc", "repro")
    seconds = time.monotonic() - start
    print(f"a short run took {seconds:.0f} s")
    return Reference(folder, seconds)


def shortened(folder: Path) -> Path:
    """Commit fewer images and epochs, since a killed run repeats no more than an epoch however many there are."""
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in (("size: 1200", "size: 600"), ("epochs: 16", "epochs: 10"), ("T_0: 16", "T_0: 10")):
        assert f" {old}\n" in text or f"\n{old}\n" in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    commit(folder, "Shorten the run")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_the_demo_can_be_learned_but_not_perfectly(twin: Path) -> None:
    values = json.loads((twin / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]
    assert 0.80 <= values["mean_15"] <= 0.93
    assert max(values[name] for name in CLASSES) <= 0.98


def test_two_clones_have_the_same_outputs(twin: Path, tmp_path: Path) -> None:
    other = copy_project(tmp_path)
    run(other, "dvc", "repro")
    assert contents(other) == contents(twin)


@pytest.mark.parametrize("command", [("dvc", "repro"), ("dvc", "exp", "run")], ids=["repro", "exp run"])
def test_a_run_that_was_killed_at_random_times_has_the_same_outputs(
    short_run: Reference, tmp_path: Path, command: tuple[str, ...]
) -> None:
    folder = shortened(copy_project(tmp_path))
    generator = random.Random(len(command))  # noqa: S311 (times, no secrets)
    first_epochs = []
    for kill in range(KILLS):
        victim = ("stage", "dvc", "both")[kill % 3]
        # Relative to a whole run, so that kills come in all epochs on a slow machine too.
        seconds = short_run.seconds * generator.uniform(0, 0.12)
        first_epochs.append(run_and_kill(folder, command, victim, seconds))
        print(f"killed {victim}; training started at epoch {first_epochs[-1]}")
    output = run(folder, *command)
    print(output)
    assert contents(folder) == contents(short_run.folder)
    known = [epoch for epoch in first_epochs if epoch]
    assert known == sorted(known)
    assert len(known) > KILLS / 2, "most kills came after the training"
    assert known[-1] > 1, "every kill came before the end of the first epoch"


def run_and_kill(folder: Path, command: tuple[str, ...], victim: str, after: float) -> int | None:
    """Start a run and kill its stage, DVC or both some seconds after the training starts; return its first epoch."""
    log = folder / "killed.log"
    with log.open("w+", encoding="utf-8") as file:
        dvc = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        while dvc.poll() is None and not FIRST_EPOCH.search(log.read_text(encoding="utf-8")):
            time.sleep(0.2)
        time.sleep(after)
        if victim != "stage" and dvc.poll() is None:
            dvc.send_signal(signal.SIGKILL)
        if victim != "dvc":
            kill_stages(folder)
        dvc.wait()
    if training := stage_processes(folder, "stages.train"):
        refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        named = re.search(r"stop it with `kill (\d+)`", refused.stdout + refused.stderr)
        assert refused.returncode != 0
        assert named, refused.stdout + refused.stderr
        assert int(named[1]) in training
    kill_stages(folder)
    started = FIRST_EPOCH.search(log.read_text(encoding="utf-8"))
    log.unlink()
    return int(started[1]) if started else None


def stage_processes(folder: Path, module: str = "stages.") -> list[int]:
    """Return the IDs of the processes that run a stage in `folder`, without the shells that DVC starts."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
            is_here = (process / "cwd").resolve() == folder.resolve()
        except OSError:
            continue
        if is_here and any(argument.startswith(module) for argument in arguments):
            found.append(int(process.name))
    return found


def kill_stages(folder: Path) -> None:
    for process in stage_processes(folder):
        os.kill(process, signal.SIGKILL)
    while stage_processes(folder):
        time.sleep(0.1)


def test_shuffled_training_labels_give_an_auroc_of_one_half(twin: Path, tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    run(folder, "dvc", "repro", "resize", "split")
    shuffle_training_labels(folder)
    for stage in ("train", "evaluate"):
        run(folder, "python", "-m", f"stages.{stage}")
    mean = json.loads((folder / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]["mean_15"]
    deviation = permutation_deviation(twin)
    print(f"mean AUROC with shuffled labels {mean:.4f}; standard deviation over permutations {deviation:.4f}")
    assert abs(mean - 0.5) < 3 * deviation
    unshuffled = json.loads((twin / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]["mean_15"]
    assert unshuffled - 0.5 > 6 * deviation


def shuffle_training_labels(folder: Path) -> None:
    """Permute the labels of the training patients, keeping the labels of a patient's images together."""
    sample = pd.read_csv(folder / "data/sample.csv")
    train = pd.read_csv(folder / "data/split.csv")["split"] == "train"
    generator = np.random.default_rng(0)
    groups = [rows.to_numpy() for _, rows in sample.loc[train].groupby("patient")[list(CLASSES)]]
    shuffled = np.concatenate([groups[index] for index in generator.permutation(len(groups))])
    ordered = sample.loc[train].sort_values("patient", kind="stable").index
    sample.loc[ordered, list(CLASSES)] = shuffled
    path = folder / "data/sample.csv"
    path.unlink()
    sample.to_csv(path, index=False)


def permutation_deviation(folder: Path, permutations: int = 200) -> float:
    """Return the standard deviation of the mean AUROC when the test patients' predictions are permuted."""
    predictions = pd.read_csv(folder / "data/predictions.csv").query("split == 'test'")
    sample = pd.read_csv(folder / "data/sample.csv").set_index("image").loc[predictions["image"]]
    labels, scores = sample[list(CLASSES)].to_numpy(np.uint8), predictions[list(CLASSES)].to_numpy()
    generator = np.random.default_rng(0)
    blocks = list(predictions.groupby("patient").indices.values())
    means = []
    for _ in range(permutations):
        order = np.concatenate([blocks[index] for index in generator.permutation(len(blocks))])
        means.append(nanmean(auroc(labels[np.concatenate(blocks)], scores[order])))
    return float(np.std(means))
