"""Speed and reproducibility of `python -m stages.train` with the classic recipe, on random images.

Train efficientnet_b3 from random weights on 28,000 images, with 6,000 for validation, at 300 px: run A for 4 epochs,
then run B, which is killed in the middle and resumed. The tensors of the two networks and all numbers of the two curves
must be equal. The time of 50 epochs is that of run A to the end of its first epoch, and 49 times the median of the
others; it includes validation. Each line is printed when it is known.

Run: `python -m benchmarks.classic FOLDER`, with `--compile` for a compiled network. `--toy` tests it with tiny images.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from safetensors import safe_open

from benchmarks.data import ROOT, write_params, write_training_data
from benchmarks.timing import print_machine
from cxr.core.paths import CURVES, IMAGES_DESCRIPTION, MODELS

PRESET = ROOT / "presets/nih-40k.yaml"
EPOCHS = 50


class Outputs(NamedTuple):
    """The outputs of a run: the hash of the tensors, without the description in the file, and the curve."""

    tensors: str
    curve: str


def main() -> None:
    """Write the data if they are missing, train both runs, and compare them."""
    args = command_line().parse_args()
    write_data(args.folder, toy=args.toy)
    if args.only_data:
        return
    print_machine(("torch", "timm"))
    print_times(list(train(args.folder, args, "A")), train_images(toy=args.toy))
    whole = read_outputs(args.folder)
    print(f"A: {whole}", flush=True)
    killed = run_killed(args.folder, args)
    print(f"B: {killed}", flush=True)
    if killed != whole:
        sys.exit("error: the runs differ")
    print("the tensors and the curves of both runs are equal")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the data (3 GB), kept between calls, and the runs")
    parser.add_argument("--epochs", type=int, default=4, help="number of epochs of each run, at least 2")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--only-data", action="store_true", help="only write the data")
    parser.add_argument("--toy", action="store_true", help="use tiny images and a tiny model")
    return parser


def train_images(*, toy: bool) -> int:
    """Return the number of training images."""
    return 400 if toy else 28_000


def write_data(folder: Path, *, toy: bool) -> None:
    """Write the sample, the split and the images, unless they exist."""
    if not (folder / IMAGES_DESCRIPTION).exists():
        write_training_data(folder, train_images(toy=toy), 100 if toy else 6_000, 32 if toy else 300)


def run_killed(folder: Path, args: argparse.Namespace) -> Outputs:
    """Train run B, kill it after half of its epochs, resume it, and return what it wrote."""
    with closing(train(folder, args, "B")) as ends:
        for _ in range(args.epochs // 2):
            next(ends)
    list(train(folder, args, "B resumed", fresh=False))
    return read_outputs(folder)


def train(folder: Path, args: argparse.Namespace, name: str, *, fresh: bool = True) -> Generator[float]:
    """Run the stage train, print its lines, and yield the seconds from its start to the end of each epoch.

    If the caller stops early, the training is killed.
    """
    if fresh:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / MODELS, ignore_errors=True)
    small: dict[str, Any] = {"models": ["test_resnet"], "batch_size": 16, "threads": 1} if args.toy else {}
    write_params(folder, PRESET, weights="none", epochs=args.epochs, compile=args.compile, **small)
    start, environment = time.perf_counter(), os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "stages.train"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            seconds = time.perf_counter() - start
            print(f"{name}, {seconds:.1f} s: {line}", end="", flush=True)
            if line.startswith("epoch"):
                yield seconds
        if process.wait():
            sys.exit(f"error: the training ended with exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()


def print_times(ends: list[float], images: int) -> None:
    """Print the time of an epoch, and of `EPOCHS` epochs, from the seconds at which the epochs of run A ended."""
    epochs = [end - start for start, end in pairwise(ends)]
    middle = median(epochs)
    total = ends[0] + (EPOCHS - 1) * middle
    print(
        f"first epoch with the start: {ends[0]:.1f} s; later epochs with validation: median {middle:.2f} s, min "
        f"{min(epochs):.2f}, max {max(epochs):.2f}, n = {len(epochs)}: {images / middle:,.0f} training images per "
        f"second; {EPOCHS} epochs: {total / 60:.1f} minutes",
        flush=True,
    )


def read_outputs(folder: Path) -> Outputs:
    """Return the hashes of the tensors and of the curve of the last run."""
    (model,) = (folder / MODELS).iterdir()
    tensors = hashlib.sha256()
    with safe_open(model, "np") as file:
        for name in sorted(file.keys()):
            tensors.update(name.encode() + file.get_tensor(name).tobytes())
    curve = hashlib.sha256((folder / CURVES).read_bytes())
    return Outputs(tensors.hexdigest()[:16], curve.hexdigest()[:16])


if __name__ == "__main__":
    main()
