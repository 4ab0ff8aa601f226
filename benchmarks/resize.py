"""Decoding and resizing of 1024 x 1024 PNGs to 300 x 300: the stage's way beside others, and beside the floor.

The floor is inflating the compressed stream alone, by zlib and by isa-l. The images are `../shared/nih-originals`, or
drawn ones where that is not there. With `--memory`, the stage itself runs on so many links to these files, and its peak
memory and time are shown.

Run: `python -m benchmarks.resize` (4 minutes), `python -m benchmarks.resize --memory 500 5000` (1 minute). Needs
    requirements-bench.txt.
"""

import os

# Before the libraries load: one image is one thread's work in every candidate.
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import argparse
import io
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pyvips
import torch
import torchvision
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from benchmarks.data import ROOT, originals, sample_table, write_params
from benchmarks.timing import alternate, show, show_machine
from cxr.core.prefetch import prefetch_map
from cxr.images.decode import decode_and_resize

SIZE = 300
LIBRARIES = ("numba", "isal", "pillow", "opencv-python-headless", "torch", "torchvision", "pyvips-binary")
Decode = Callable[[bytes], Any]


def main() -> None:
    """Time all ways, or the stage's memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each way has its turn")
    parser.add_argument("--memory", type=int, nargs="+", metavar="IMAGES", help="run the stage on so many images")
    arguments = parser.parse_args()
    show_machine(LIBRARIES)
    files = originals()
    gray = [file for file in files.values() if file[25] == 0]
    if arguments.memory:
        for count in arguments.memory:
            run_stage(gray, count)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    compare("Gray files, one core", gray, 1, arguments.rounds)
    compare("Gray files, all cores", gray, os.cpu_count() or 1, arguments.rounds)
    show_scaling(gray, 3 * arguments.rounds)
    if len(gray) < len(files):
        compare("All files, RGBA among them, one core", list(files.values()), 1, arguments.rounds)


def compare(title: str, files: list[bytes], workers: int, rounds: int) -> None:
    """Show the time of each way on `files`, by so many threads."""
    ways: dict[str, Decode] = {
        "this project": lambda file: decode_and_resize(file, SIZE),
        "Pillow": by_pillow,
        "OpenCV": by_opencv,
        "torchvision": by_torchvision,
        "pyvips": by_pyvips,
        "floor: zlib inflates": lambda file: zlib.decompress(compressed[file]),
        "floor: isa-l inflates": lambda file: isal_zlib.decompress(compressed[file]),
    }
    compressed = {file: b"".join(_pixel_chunks(file)) for file in files}
    times = alternate({name: work(way, files, workers) for name, way in ways.items()}, rounds)
    show(title, times, len(files), "image", "this project")


def show_scaling(files: list[bytes], rounds: int) -> None:
    """Show what a second core is worth, here and to zlib alone, which no lock of Python's holds up."""
    compressed = {file: b"".join(_pixel_chunks(file)) for file in files}
    ways: dict[str, Decode] = {
        "this project": lambda file: decode_and_resize(file, SIZE),
        "zlib inflates": lambda file: zlib.decompress(compressed[file]),
    }
    turns = {f"{name}, {cores}": work(ways[name], files, cores) for name in ways for cores in (1, 2)}
    times = alternate(turns, rounds)
    for name in ways:
        ratios = [one / two for one, two in zip(times[f"{name}, 1"], times[f"{name}, 2"], strict=True)]
        print(
            f"{name}: two cores are {median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def work(way: Decode, files: list[bytes], workers: int) -> Callable[[], object]:
    """One turn: all of `files`, by so many threads."""
    return lambda: [None for _ in prefetch_map(way, files, workers, 4 * workers)]


def by_pillow(file: bytes) -> NDArray[np.uint8]:
    """The plain loop that most projects have."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def by_opencv(file: bytes) -> Any:
    """OpenCV, with the one of its methods that averages all pixels."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    return cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def by_torchvision(file: bytes) -> torch.Tensor:
    """Torchvision's decoder and its antialiased resize."""
    mode = torchvision.io.ImageReadMode.GRAY
    pixels = torchvision.io.decode_png(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode)
    resized: torch.Tensor = functional.resize(pixels, [SIZE, SIZE], antialias=True)
    return resized


def by_pyvips(file: bytes) -> Any:
    """Vips, reading and shrinking in one pipeline."""
    return pyvips.Image.thumbnail_buffer(file, SIZE, height=SIZE, size="force").extract_band(0).numpy()


def _pixel_chunks(file: bytes) -> list[bytes]:
    chunks, place = [], 8
    while place < len(file):
        length = int.from_bytes(file[place : place + 4])
        if file[place + 4 : place + 8] == b"IDAT":
            chunks.append(file[place + 8 : place + 8 + length])
        place += 12 + length
    return chunks


def run_stage(files: list[bytes], count: int) -> None:
    """Run the stage on `count` links to `files`; show its time and its peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_links(folder, files, count)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "stages.resize"], cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"error: the stage ended with {os.waitstatus_to_exitcode(status)}")
    print(f"{count:,} images: {seconds:.1f} s, {count / seconds:.0f} images a second, {usage.ru_maxrss / 1e6:.3f} GB")


def write_links(folder: Path, files: list[bytes], count: int) -> None:
    """Lay out `count` images, each a link to one of `files`, and what the stage reads beside them."""
    (folder / "once").mkdir()
    (folder / "raw/images").mkdir(parents=True)
    (folder / "data").mkdir()
    table = sample_table(count)
    for number, file in enumerate(files):
        (folder / f"once/{number}").write_bytes(file)
    for number, image in enumerate(table["image"]):
        (folder / "raw/images" / image).symlink_to(folder / f"once/{number % len(files)}")
    table.to_csv(folder / "data/sample.csv", index=False)
    write_params(folder, ROOT / "params.yaml", raw_dir="raw", image_size=SIZE)


if __name__ == "__main__":
    main()
