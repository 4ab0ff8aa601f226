"""Time of the work on tables: sample and split with 112,120 images, and the metrics of 25,596 images.

Sample and split run as processes of their own on the complete table of NIH, from `../shared/nih-metadata`, with an
empty file for each image. The metrics are those that the stage evaluate computes with 1,000 bootstrap samples, here
of random probabilities. The peak memory is that of the whole process.

Run: `python -m benchmarks.tables` (2 minutes).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import ROOT, sample_table, write_params
from benchmarks.timing import print_machine, print_times, time_alternating
from cxr.core.labels import label_matrix
from cxr.core.params import read_params
from cxr.datasets.nih import read_table
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.decisions import fit_decisions
from cxr.evaluation.params import EvaluateParams
from cxr.evaluation.summary import Predictions, evaluate_test_images
from cxr.models.members import Member
from stages import evaluate

METADATA = ROOT.parent / "shared/nih-metadata"


def main() -> None:
    """Time the stages and the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of timed rounds")
    args = parser.parse_args()
    print_machine(("pandas", "numpy", "scikit-learn"))
    with tempfile.TemporaryDirectory() as name:
        if METADATA.is_dir():
            rows = write_raw_dir(Path(name))
            for size in (40_000, rows):
                write_params(Path(name), ROOT / "params.yaml", raw_dir=".", sample={"size": size, "exclude": []})
                stages = {stage: stage_run(stage, Path(name)) for stage in ("sample", "split")}
                print_times(f"{size:,} of {rows:,} images", time_alternating(stages, args.rounds), 1, "run", "sample")
        else:
            print("no ../shared/nih-metadata: sample and split are skipped")
    times = time_alternating({"metrics": metrics_run(25_596)}, args.rounds)
    print_times("25,596 images, 15 classes", times, 1, "run", "metrics")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def write_raw_dir(folder: Path) -> int:
    """Write a `raw_dir` with the complete table of NIH and empty image files; return the number of images."""
    table = read_table(METADATA)
    (folder / "images").mkdir()
    for path in METADATA.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    for name in table["image"]:
        (folder / "images" / name).touch()
    return len(table)


def stage_run(name: str, folder: Path) -> Callable[[], object]:
    """Return a function that runs a stage as a process, as `dvc repro` does."""
    command = [sys.executable, "-m", f"stages.{name}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return lambda: subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def metrics_run(images: int) -> Callable[[], object]:
    """Return a function that computes the metrics of evaluate for random probabilities, with two images per patient."""
    random = np.random.default_rng(0)
    table = sample_table(images)
    table["age"], table["sex"] = random.integers(5, 90, images), random.choice(["F", "M"], images)
    labels = label_matrix(table)
    scores = 1 / (1 + np.exp(-random.normal(size=labels.shape) - labels))
    params = read_params(EvaluateParams, ROOT / "params.yaml")

    def compute() -> None:
        test = Predictions(table, labels, {Member("one", 1): scores}, scores)
        decisions = fit_decisions(labels, scores, params.threshold, sha256={}, tta=params.tta, synthetic=False)
        samples = bootstrap_patients(table["patient"], params.bootstrap_samples, evaluate.BOOTSTRAP_SEED)
        evaluate_test_images(test, decisions, samples, params.calibration_bins)

    return compute


if __name__ == "__main__":
    main()
