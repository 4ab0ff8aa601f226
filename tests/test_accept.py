"""Full-size runs of the committed parameters: `make accept`. Minutes each; not among the tests of every change."""

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.labels import CLASSES
from cxr.evaluation.metrics import auroc, nanmean
from tests.fixtures.project import copy_project, run

pytestmark = pytest.mark.accept

KILLS = 8
OUTPUTS = ("dvc.lock", "metrics/test.json", "data/curves.csv", "data/predictions.csv")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which the pipeline ran from start to end."""
    folder = copy_project(tmp_path_factory.mktemp("twin"))
    start = time.monotonic()
    run(folder, "dvc", "repro")
    print(f"dvc repro took {time.monotonic() - start:.0f} s")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_the_demo_is_learnt_and_is_no_caricature(twin: Path) -> None:
    values = json.loads((twin / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]
    assert 0.80 <= values["mean_15"] <= 0.93
    assert max(values[name] for name in CLASSES) <= 0.98


def test_twin_clones_have_the_same_bytes(twin: Path, tmp_path: Path) -> None:
    other = copy_project(tmp_path)
    run(other, "dvc", "repro")
    assert contents(other) == contents(twin)


@pytest.mark.parametrize("command", [("dvc", "repro"), ("dvc", "exp", "run")], ids=["repro", "exp run"])
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(
    twin: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    folder = copy_project(tmp_path)
    chance = random.Random(len(command))  # noqa: S311 (moments, no secrets)
    epochs = []
    for kill in range(KILLS):
        victim = ("trainer", "dvc", "both")[kill % 3]
        epochs.append(run_and_kill(folder, command, victim, chance.uniform(8, 35)))
        print(f"killed {victim}; training began from epoch {epochs[-1]}")
    output = run(folder, *command)
    print(output)
    assert contents(folder) == contents(twin)
    begun = [epoch for epoch in epochs if epoch]
    assert begun == sorted(begun)
    assert begun[-1] > 1, "no kill came late enough to resume from"


def run_and_kill(folder: Path, command: tuple[str, ...], victim: str, after: float) -> int | None:
    """Start a run, kill its trainer, its dvc or both after some seconds; the epoch from which it trained."""
    log = folder / "killed.log"
    with log.open("w+", encoding="utf-8") as file:
        dvc = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and dvc.poll() is None:
            time.sleep(0.2)
        if victim != "trainer" and dvc.poll() is None:
            dvc.send_signal(signal.SIGKILL)
        if victim != "dvc":
            kill_trainer(folder)
        dvc.wait()
    if victim == "dvc" and trainers(folder):
        refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        named = re.search(r"stop it with `kill (\d+)`", refused.stdout + refused.stderr)
        assert refused.returncode != 0
        assert named, refused.stdout + refused.stderr
        assert int(named[1]) in trainers(folder)
        kill_trainer(folder)
    begun = re.search(r"epoch (\d+) on$", log.read_text(encoding="utf-8"), re.MULTILINE)
    log.unlink()
    return int(begun[1]) if begun else None


def trainers(folder: Path) -> list[int]:
    """Processes that train in `folder`, but for the shell that DVC puts in between."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            ours = (process / "cwd").resolve() == folder.resolve()
        except OSError:
            continue
        if ours and b"stages.train" in arguments:
            found.append(int(process.name))
    return found


def kill_trainer(folder: Path) -> None:
    for process in trainers(folder):
        os.kill(process, signal.SIGKILL)
    while trainers(folder):
        time.sleep(0.1)


def test_shuffled_training_labels_teach_nothing(twin: Path, tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    run(folder, "dvc", "repro", "resize", "split")
    shuffle_training_labels(folder)
    for stage in ("train", "evaluate"):
        run(folder, "python", "-m", f"stages.{stage}")
    mean = json.loads((folder / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]["mean_15"]
    spread = chance_spread(twin)
    print(f"mean AUROC after shuffled labels {mean:.4f}; sd of chance {spread:.4f}")
    assert abs(mean - 0.5) < 3 * spread
    learnt = json.loads((twin / "metrics/test.json").read_text(encoding="utf-8"))["auroc"]["mean_15"]
    assert learnt - 0.5 > 6 * spread


def shuffle_training_labels(folder: Path) -> None:
    """Hand the labels of whole training patients to other patients, a run of images at a time."""
    sample = pd.read_csv(folder / "data/sample.csv")
    train = pd.read_csv(folder / "data/split.csv")["split"] == "train"
    chance = np.random.default_rng(0)
    groups = [rows.to_numpy() for _, rows in sample.loc[train].groupby("patient")[list(CLASSES)]]
    shuffled = np.concatenate([groups[place] for place in chance.permutation(len(groups))])
    ordered = sample.loc[train].sort_values("patient", kind="stable").index
    sample.loc[ordered, list(CLASSES)] = shuffled
    path = folder / "data/sample.csv"
    path.unlink()
    sample.to_csv(path, index=False)


def chance_spread(folder: Path, draws: int = 200) -> float:
    """Standard deviation of the mean AUROC over random orders of the test patients' predictions."""
    predictions = pd.read_csv(folder / "data/predictions.csv").query("split == 'test'")
    sample = pd.read_csv(folder / "data/sample.csv").set_index("image").loc[predictions["image"]]
    labels, scores = sample[list(CLASSES)].to_numpy(np.uint8), predictions[list(CLASSES)].to_numpy()
    chance = np.random.default_rng(0)
    blocks = list(predictions.groupby("patient").indices.values())
    means = []
    for _ in range(draws):
        order = np.concatenate([blocks[place] for place in chance.permutation(len(blocks))])
        means.append(nanmean(auroc(labels[np.concatenate(blocks)], scores[order])))
    return float(np.std(means))
