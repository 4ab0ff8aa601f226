"""Work on tables: sample and split on all 112,120 rows, and evaluate's measures at 25,596 x 15, 1,000 resamples.

Sample and split run as processes of their own, on NIH's complete table from `../shared/nih-metadata` with an empty file
for each image (sample only looks whether it is there). The measures are all that `stages.evaluate` writes into
`metrics/`, on random scores; the peak memory is that of the whole process.

Run: `python -m benchmarks.tables` (2 minutes).
"""

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import ROOT, sample_table, write_params
from benchmarks.timing import alternate, show, show_machine
from cxr.core.params import read_params
from cxr.core.tables import label_matrix
from cxr.datasets.nih import read_table
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.decisions import decide
from cxr.evaluation.params import EvaluateParams
from cxr.evaluation.summary import class_metrics
from cxr.models.members import Member
from stages import evaluate

METADATA = ROOT.parent / "shared/nih-metadata"


def main() -> None:
    """Time the stages and the measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    arguments = parser.parse_args()
    show_machine(("pandas", "numpy", "scikit-learn"))
    with tempfile.TemporaryDirectory() as name:
        if METADATA.is_dir():
            rows = write_complete(Path(name))
            for size in (40_000, rows):
                write_params(Path(name), ROOT / "params.yaml", raw_dir=".", sample={"size": size, "exclude": []})
                stages = {stage: stage_of(stage, Path(name)) for stage in ("sample", "split")}
                show(f"{size:,} of {rows:,} rows", alternate(stages, arguments.rounds), 1, "run", "sample")
        else:
            print("no ../shared/nih-metadata: sample and split are left out")
    times = alternate({"measures": measures_at(25_596)}, arguments.rounds)
    show("25,596 images, 15 classes", times, 1, "run", "measures")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def write_complete(folder: Path) -> int:
    """Lay out NIH's complete table and a file for each image; return how many there are."""
    table = read_table(METADATA)
    (folder / "images").mkdir()
    for path in METADATA.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    for name in table["image"]:
        (folder / "images" / name).touch()
    return len(table)


def stage_of(name: str, folder: Path) -> Callable[[], object]:
    """A run of a stage, as `dvc repro` starts it."""
    command = [sys.executable, "-m", f"stages.{name}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return lambda: subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def measures_at(images: int) -> Callable[[], object]:
    """All that evaluate measures of so many images, two of each patient."""
    random = np.random.default_rng(0)
    table = sample_table(images)
    table["age"], table["sex"] = random.integers(5, 90, images), random.choice(["F", "M"], images)
    labels = label_matrix(table)
    scores = 1 / (1 + np.exp(-random.normal(size=labels.shape) - labels))
    params = read_params(EvaluateParams, ROOT / "params.yaml")

    def work() -> None:
        decisions = decide(labels, scores, params.threshold)
        rows, none = np.arange(images), np.empty((0, 1, 1), np.uint8)
        test = evaluate.Test(table, labels, {Member("one", 1): scores}, scores, none, rows, "random scores")
        classes = class_metrics(labels, scores, decisions.thresholds)
        drawn = bootstrap_patients(table["patient"], params.bootstrap_samples, evaluate.BOOTSTRAP_SEED)
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), contextlib.redirect_stdout(io.StringIO()):
            evaluate.write_metrics(test, classes, decisions, params, drawn)

    return work


if __name__ == "__main__":
    main()
