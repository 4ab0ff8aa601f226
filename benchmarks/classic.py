"""The classic run, and whether it repeats: `python -m stages.train` on random bytes as pixels.

28,000 training and 6,000 validation images at 300 px, efficientnet_b3 from random weights, the classic recipe's
parameters. The run is stopped after `--minutes`; run again, it goes on, as a stopped training does. Its epochs are
timed from what it prints, the first, which warms up, apart. `--twice` trains a small set of images twice, and a third
time with a kill and a resumption in between, and compares the bytes.

Run: `python -m benchmarks.classic FOLDER --minutes 3`, `python -m benchmarks.classic FOLDER --twice`. `--toy` tries
    either with tiny images.
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
from benchmarks.timing import show_machine

PRESET = ROOT / "presets/nih-40k.yaml"
EPOCHS = 50


def main() -> None:
    """Make the data where it is missing, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where data (3 GB) and checkpoints are kept from call to call")
    parser.add_argument("--minutes", type=float, default=3, help="when to stop; the next call goes on")
    parser.add_argument("--twice", action="store_true", help="compare the bytes of three small runs instead")
    parser.add_argument("--toy", action="store_true", help="tiny images and a tiny network, to see that it runs")
    arguments = parser.parse_args()
    show_machine(("torch", "timm"))
    if arguments.twice:
        compare_runs(arguments.folder, toy=arguments.toy)
    else:
        time_epochs(arguments.folder, arguments.minutes, toy=arguments.toy)


def time_epochs(folder: Path, minutes: float, *, toy: bool) -> None:
    """Train for so many minutes; show the time of an epoch and what 50 would take."""
    prepare(folder, 400 if toy else 28_000, 100 if toy else 6_000, toy=toy)
    ends = [at for at, line in train(folder, 60 * minutes) if line.startswith("epoch")]
    lengths = [end - start for start, end in pairwise(ends)]
    if not lengths:
        sys.exit("error: fewer than two epochs ended in this time: raise --minutes")
    middle, images = median(lengths), 400 if toy else 28_000
    print(
        f"an epoch with validation: median {middle:.2f} s, min {min(lengths):.2f}, max {max(lengths):.2f}, "
        f"n = {len(lengths)}; {images / middle:,.0f} training images a second; {EPOCHS} epochs: "
        f"{EPOCHS * middle / 60:.1f} minutes"
    )


def compare_runs(folder: Path, *, toy: bool) -> None:
    """Train three times, once with a kill; print the hash of each network, and fail where they differ."""
    prepare(folder, 200 if toy else 2000, 60 if toy else 500, toy=toy, epochs=3)
    hashes = {}
    for name, kill in (("once", False), ("twice", False), ("killed and resumed", True)):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if kill:
            train(folder, 3600, lines=2)
        train(folder, 3600)
        model = next((folder / "data/models").iterdir())
        hashes[name] = hashlib.sha256(model.read_bytes()).hexdigest()
        print(f"{name}: {hashes[name]}", flush=True)
    if len(set(hashes.values())) > 1:
        sys.exit("error: the bytes differ")
    print("the same bytes")


def prepare(folder: Path, images: int, val: int, *, toy: bool, epochs: int = EPOCHS) -> None:
    """Write data and parameters, the data only where they are missing."""
    size = 32 if toy else 300
    if not (folder / "data/images.npy").exists():
        write_training_data(folder, images, val, size)
    small: dict[str, Any] = {"models": ["test_resnet"], "batch_size": 16, "threads": 1} if toy else {}
    write_params(folder, PRESET, weights="none", epochs=epochs, **small)


def train(folder: Path, seconds: float, lines: int | None = None) -> list[tuple[float, str]]:
    """Run the stage until it ends, so many seconds, or so many lines, then kill it; its lines, each with its time."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.train"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    stop = threading.Timer(seconds, process.kill)
    stop.start()
    printed: list[tuple[float, str]] = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append((time.perf_counter(), line))
        if len(printed) == lines:
            process.kill()
    process.wait()
    stop.cancel()
    if process.returncode > 0:
        sys.exit(f"error: the training ended with {process.returncode}")
    return printed


if __name__ == "__main__":
    main()
