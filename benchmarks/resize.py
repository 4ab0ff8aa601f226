"""Time to decode PNGs of 1024 x 1024 pixels and resize them to 300 x 300, compared with other libraries.

The lower bound is the decompression of the PNG data alone, with zlib and with isa-l. The images are those in
`../shared/nih-originals`, or synthetic ones if the folder is missing. With `--memory`, run the stage resize on links to
these files, and print its time and peak memory.

Run: `python -m benchmarks.resize` (4 minutes), `python -m benchmarks.resize --memory 500 5000` (1 minute). Needs
    requirements-bench.txt.
"""

import os

# Must precede the import of pyvips. Every candidate uses one thread per image.
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

from benchmarks.data import ROOT, is_gray, original_images, sample_table, write_params
from benchmarks.timing import print_machine, print_times, time_alternating
from cxr.core.prefetch import prefetch_map
from cxr.images.decode import decode_and_resize

SIZE = 300
LIBRARIES = ("numba", "isal", "pillow", "opencv-python-headless", "torch", "torchvision", "pyvips-binary")
Method = Callable[[bytes], Any]


def main() -> None:
    """Time all methods, or measure the memory of the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="number of timed rounds")
    parser.add_argument(
        "--memory", type=int, nargs="+", metavar="IMAGES", help="measure the stage with this many images"
    )
    args = parser.parse_args()
    print_machine(LIBRARIES)
    files = original_images()
    gray = [file for file in files.values() if is_gray(file)]
    if args.memory:
        for count in args.memory:
            run_stage(gray, count)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    compare("Gray files, one core", gray, 1, args.rounds)
    compare("Gray files, all cores", gray, os.cpu_count() or 1, args.rounds)
    print_speedup(gray, 3 * args.rounds)
    if len(gray) < len(files):
        compare("All files, including RGBA, one core", list(files.values()), 1, args.rounds)


def compare(title: str, files: list[bytes], workers: int, rounds: int) -> None:
    """Print the time of each method with `workers` threads."""
    methods: dict[str, Method] = {
        "this project": lambda file: decode_and_resize(file, SIZE),
        "Pillow": with_pillow,
        "OpenCV": with_opencv,
        "torchvision": with_torchvision,
        "pyvips": with_pyvips,
        "lower bound: inflate with zlib only": lambda file: zlib.decompress(compressed[file]),
        "lower bound: inflate with isa-l only": lambda file: isal_zlib.decompress(compressed[file]),
    }
    compressed = {file: b"".join(_idat_chunks(file)) for file in files}
    times = time_alternating({name: run_method(method, files, workers) for name, method in methods.items()}, rounds)
    print_times(title, times, len(files), "image", "this project")


def print_speedup(files: list[bytes], rounds: int) -> None:
    """Print how much faster two cores are than one, here and for zlib alone, which releases the interpreter lock."""
    compressed = {file: b"".join(_idat_chunks(file)) for file in files}
    methods: dict[str, Method] = {
        "this project": lambda file: decode_and_resize(file, SIZE),
        "inflate with zlib only": lambda file: zlib.decompress(compressed[file]),
    }
    candidates = {f"{name}, {cores}": run_method(methods[name], files, cores) for name in methods for cores in (1, 2)}
    times = time_alternating(candidates, rounds)
    for name in methods:
        ratios = [one / two for one, two in zip(times[f"{name}, 1"], times[f"{name}, 2"], strict=True)]
        print(
            f"{name}: two cores are {median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def run_method(method: Method, files: list[bytes], workers: int) -> Callable[[], object]:
    """Return a function that decodes all files with `workers` threads."""
    return lambda: [None for _ in prefetch_map(method, files, workers, 4 * workers)]


def with_pillow(file: bytes) -> NDArray[np.uint8]:
    """Decode and resize with Pillow."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def with_opencv(file: bytes) -> Any:
    """Decode and resize with OpenCV, with the interpolation that averages all pixels."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    return cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def with_torchvision(file: bytes) -> torch.Tensor:
    """Decode and resize with torchvision, with antialiasing."""
    mode = torchvision.io.ImageReadMode.GRAY
    pixels = torchvision.io.decode_png(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode)
    resized: torch.Tensor = functional.resize(pixels, [SIZE, SIZE], antialias=True)
    return resized


def with_pyvips(file: bytes) -> Any:
    """Decode and resize with libvips, in one pipeline."""
    return pyvips.Image.thumbnail_buffer(file, SIZE, height=SIZE, size="force").extract_band(0).numpy()


def _idat_chunks(png: bytes) -> list[bytes]:
    chunks, offset = [], 8
    while offset < len(png):
        length = int.from_bytes(png[offset : offset + 4])
        if png[offset + 4 : offset + 8] == b"IDAT":
            chunks.append(png[offset + 8 : offset + 8 + length])
        offset += 12 + length
    return chunks


def run_stage(files: list[bytes], count: int) -> None:
    """Run the stage resize on `count` links to `files`; print its time and peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_resize_project(folder, files, count)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "stages.resize"], cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"error: the stage ended with exit code {os.waitstatus_to_exitcode(status)}")
    print(
        f"{count:,} images: {seconds:.1f} s, {count / seconds:.0f} images per second, peak memory "
        f"{usage.ru_maxrss / 1e6:.3f} GB"
    )


def write_resize_project(folder: Path, files: list[bytes], count: int) -> None:
    """Write the inputs of the stage: `count` images, each a link to one of `files`, the table and the parameters."""
    (folder / "originals").mkdir()
    (folder / "raw/images").mkdir(parents=True)
    (folder / "data").mkdir()
    table = sample_table(count)
    for number, file in enumerate(files):
        (folder / f"originals/{number}").write_bytes(file)
    for number, image in enumerate(table["image"]):
        (folder / "raw/images" / image).symlink_to(folder / f"originals/{number % len(files)}")
    table.to_csv(folder / "data/sample.csv", index=False)
    write_params(folder, ROOT / "params.yaml", raw_dir="raw", image_size=SIZE)


if __name__ == "__main__":
    main()
