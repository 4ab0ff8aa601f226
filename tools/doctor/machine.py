"""What the machine and its packages are. Imports nothing that may be missing, but for PyTorch where there is a GPU."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.doctor.remarks import INSTALL, SET_UP, Remark

REQUIREMENTS = Path("requirements.txt")
OLDEST_PYTHON = (3, 11)
SHOWN = ("torch", "torchvision", "timm")
LITTLE_MEMORY, LITTLE_DISK = 4e9, 5e9  # bytes
LONGEST_WAIT = 30  # seconds, for another program's answer


def remarks() -> Iterator[Remark]:
    """Python, packages, GPU, cores and memory, disk, DVC."""
    for look in (python, packages, gpu, processor, disk, dvc):
        yield from look()


def python() -> Iterator[Remark]:
    """The version, and whether DVC would run this Python: it takes the path's."""
    said = f"{sys.version.partition(' ')[0]}, {sys.executable}"
    on_path = shutil.which("python")
    if sys.version_info < OLDEST_PYTHON:
        yield Remark("problem", "Python", f"{said}: 3.11 or newer is needed; `make repro PYTHON=python3.11`")
    elif on_path is None:
        yield Remark("problem", "Python", f"{said}, but the path has no python for DVC to run: `. .venv/bin/activate`")
    elif environment(on_path) != environment(sys.executable):
        yield Remark("warning", "Python", f"{said}, but DVC runs the path's {on_path}: `. .venv/bin/activate`")
    else:
        yield Remark("ok", "Python", said)


def environment(executable: str) -> str | None:
    """Where a Python finds its packages, and its version: one environment has several names for its Python."""
    return answer(executable, "-c", "import os, sys; print(os.path.realpath(sys.prefix), sys.version)")


def packages() -> Iterator[Remark]:
    """Every package that requirements.txt pins; a build's own suffix, as in 2.11.0+cpu, is no other version."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE))
    found = {name: installed(name) for name in pins}
    missing = [name for name in pins if found[name] is None]
    other = [f"{name} {has} (pinned: {pins[name]})" for name, has in found.items() if has and is_other(has, pins[name])]
    if missing:
        yield Remark("problem", "packages", f"{', '.join(missing)} missing: {SET_UP}")
    if other:
        yield Remark("warning", "packages", f"{', '.join(other)}: other bits may come out; {INSTALL}")
    if not missing and not other:
        shown = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
        yield Remark("ok", "packages", f"{shown}; all {len(pins)} are as requirements.txt pins them")


def installed(name: str) -> str | None:
    """The version of a package, without importing it; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_other(has: str, pinned: str) -> bool:
    """Whether a version is not the pinned one."""
    return has.partition("+")[0] != pinned


def gpu() -> Iterator[Remark]:
    """Each NVIDIA GPU with its memory and driver, and whether PyTorch can use them."""
    if shutil.which("nvidia-smi") is None:
        yield Remark("ok", "GPU", "no GPU: the CPU is used")
        return
    said = answer("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if not said:
        yield Remark("warning", "GPU", "nvidia-smi finds none: the CPU is used; `nvidia-smi` says what is wrong")
        return
    cuda = cuda_of_torch()
    for line in said.splitlines():
        card = "{}, {}, driver {}".format(*line.split(", "))
        if cuda:
            yield Remark("ok", "GPU", f"{card}, CUDA {cuda}")
        else:
            yield Remark("warning", "GPU", f"{card}, but PyTorch cannot use it: the CPU is used; {INSTALL}")


def cuda_of_torch() -> str | None:
    """The version of CUDA that PyTorch computes with; None where it has no GPU to compute on."""
    try:
        import torch  # noqa: PLC0415 (seconds, and it may be missing)
    except ImportError:
        return None
    return torch.version.cuda if torch.cuda.is_available() else None


def processor() -> Iterator[Remark]:
    """Cores and memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    said = f"{os.cpu_count()} cores, {memory / 1e9:.0f} GB of memory"
    if memory < LITTLE_MEMORY:
        yield Remark("warning", "machine", f"{said}: where it gets short, lower batch_size or image_size")
    else:
        yield Remark("ok", "machine", said)


def disk() -> Iterator[Remark]:
    """What is free where the repository lies."""
    free = shutil.disk_usage(".").free
    if free < LITTLE_DISK:
        yield Remark("warning", "disk", f"{free / 1e9:.1f} GB free: make room; `dvc gc --workspace` drops old outputs")
    else:
        yield Remark("ok", "disk", f"{free / 1e9:.0f} GB free")


def dvc() -> Iterator[Remark]:
    """DVC's version, and whether outputs and its cache share their bytes or each is kept twice."""
    has = installed("dvc")
    if has is None:
        yield Remark("problem", "DVC", f"not installed: {SET_UP}")
        return
    said = answer(sys.executable, "-m", "dvc", "doctor") or ""
    can = re.search(r"^Cache types: (.*)$", said, re.MULTILINE)
    wanted = (answer(sys.executable, "-m", "dvc", "config", "cache.type") or "reflink,copy").split(",")
    if can is None:
        yield Remark("problem", "DVC", f"{has}, but `dvc doctor` finds no repository: run from the top of a clone")
    elif "no-dvc-cache" in can[1]:
        yield Remark("ok", "DVC", f"{has}; which links the file system has is known once `dvc repro` has made a cache")
    else:
        yield link(has, wanted, re.findall(r"reflink|hardlink|symlink", can[1]))


def link(has: str, wanted: list[str], can: list[str]) -> Remark:
    """Which of the links in `wanted`, in this order, DVC takes on a file system that can make those in `can`."""
    taken = next((kind for kind in wanted if kind in can), "copy")
    said = f"{has}, outputs by {taken} (the file system has {', '.join(can) or 'no links'})"
    if taken == "copy":
        hint = "every output is kept twice; `dvc config cache.type reflink,hardlink,symlink,copy`"
        return Remark("warning", "DVC", f"{said}: {hint}")
    return Remark("ok", "DVC", said)


def answer(*command: str) -> str | None:
    """What a program prints; None where it is not there, fails, or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST_WAIT)  # noqa: S603 (our own words)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
