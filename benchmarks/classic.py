"""Speed and reproducibility of `python -m stages.train` with the classic recipe, on random images.

By default, train efficientnet_b3 from random weights on 28,000 training and 6,000 validation images at 300 px, stop
after `--minutes`, and print the time per epoch without the first epoch. The next call resumes the training. With
`--twice`, train a small set of images twice, and a third time with an interruption, and compare the bytes of the
networks.

Run: `python -m benchmarks.classic FOLDER --minutes 3`, `python -m benchmarks.classic FOLDER --twice`. `--toy` tests
    either of them with tiny images.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.data import ROOT, write_params, write_training_data
from benchmarks.timing import print_machine
from cxr.core.paths import IMAGES_DESCRIPTION

PRESET = ROOT / "presets/nih-40k.yaml"
EPOCHS = 50


def main() -> None:
    """Write the data if they are missing, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the data (3 GB) and checkpoints, kept between calls")
    parser.add_argument("--minutes", type=float, default=3, help="time after which training is stopped")
    parser.add_argument("--twice", action="store_true", help="compare the bytes of three small runs instead")
    parser.add_argument("--toy", action="store_true", help="use tiny images and a tiny model")
    args = parser.parse_args()
    print_machine(("torch", "timm"))
    if args.twice:
        compare_runs(args.folder, toy=args.toy)
    else:
        time_epochs(args.folder, args.minutes, toy=args.toy)


def time_epochs(folder: Path, minutes: float, *, toy: bool) -> None:
    """Train for `minutes`; print the time per epoch and the estimated time of 50 epochs."""
    train_images = 400 if toy else 28_000
    write_classic_project(folder, train_images, 100 if toy else 6_000, toy=toy)
    ends = [seconds for seconds, line in run_train(folder, 60 * minutes) if line.startswith("epoch")]
    durations = [end - start for start, end in pairwise(ends)]
    if not durations:
        sys.exit("error: fewer than two epochs ended in this time: raise --minutes")
    middle = median(durations)
    print(
        f"epoch with validation: median {middle:.2f} s, min {min(durations):.2f}, max {max(durations):.2f}, "
        f"n = {len(durations)}; {train_images / middle:,.0f} training images per second; {EPOCHS} epochs: "
        f"{EPOCHS * middle / 60:.1f} minutes"
    )


def compare_runs(folder: Path, *, toy: bool) -> None:
    """Train three times, once with an interruption; print the hash of each network, and exit with 1 if they differ."""
    write_classic_project(folder, 200 if toy else 2000, 60 if toy else 500, toy=toy, epochs=3)
    hashes = {}
    for name, interrupt in (("first", False), ("second", False), ("killed and resumed", True)):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if interrupt:
            run_train(folder, 3600, max_lines=2)
        run_train(folder, 3600)
        model = next((folder / "data/models").iterdir())
        hashes[name] = hashlib.sha256(model.read_bytes()).hexdigest()
        print(f"{name}: {hashes[name]}", flush=True)
    if len(set(hashes.values())) > 1:
        sys.exit("error: the bytes differ")
    print("the bytes are equal")


def write_classic_project(folder: Path, train: int, val: int, *, toy: bool, epochs: int = EPOCHS) -> None:
    """Write the parameters, and the data if they are missing."""
    if not (folder / IMAGES_DESCRIPTION).exists():
        write_training_data(folder, train, val, 32 if toy else 300)
    small: dict[str, Any] = {"models": ["test_resnet"], "batch_size": 16, "threads": 1} if toy else {}
    write_params(folder, PRESET, weights="none", epochs=epochs, **small)


def run_train(folder: Path, max_seconds: float, max_lines: int | None = None) -> list[tuple[float, str]]:
    """Run the stage train and kill it at a limit; return its output lines with the time of each in seconds."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.train"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(max_seconds, process.kill)
    timer.start()
    lines: list[tuple[float, str]] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.perf_counter(), line))
        if len(lines) == max_lines:
            process.kill()
    process.wait()
    timer.cancel()
    if process.returncode > 0:
        sys.exit(f"error: the training ended with exit code {process.returncode}")
    return lines


if __name__ == "__main__":
    main()
