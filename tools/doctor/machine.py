"""Checks of the machine and its packages. Uses the standard library only, and PyTorch on machines with a GPU."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.doctor.checks import INSTALL, SET_UP, Check

REQUIREMENTS, CONSTRAINTS = Path("requirements.txt"), Path("constraints.txt")
LISTED = ("torch", "torchvision", "timm")
LITTLE_MEMORY, LITTLE_DISK = 4e9, 5e9  # bytes
TIMEOUT = 30  # seconds for another program


def run_checks() -> Iterator[Check]:
    """Yield the results for Python, packages, GPU, cores and memory, disk, and DVC."""
    for check in (python, packages, gpu, processor, disk, dvc):
        yield from check()


def python() -> Iterator[Check]:
    """Check that DVC, which runs the `python` on PATH, uses this environment; `supported` has checked the version."""
    this = f"{sys.version.partition(' ')[0]}, {sys.executable}"
    on_path = shutil.which("python")
    if on_path is None:
        yield Check("problem", "Python", f"{this}, but PATH has no `python` for DVC: `. .venv/bin/activate`")
    elif environment(on_path) != environment(sys.executable):
        yield Check("warning", "Python", f"{this}, but DVC would run {on_path}: `. .venv/bin/activate`")
    else:
        yield Check("ok", "Python", this)


def environment(executable: str) -> str | None:
    """Return the prefix and version of a Python, which identify its environment under any path."""
    return output_of(executable, "-c", "import os, sys; print(os.path.realpath(sys.prefix), sys.version)")


def packages() -> Iterator[Check]:
    """Check that the packages of requirements.txt are installed, in the versions of constraints.txt."""
    versions = pins(CONSTRAINTS)
    required = pins(REQUIREMENTS)
    found = {name: has for name in versions if (has := installed(name))}
    missing = [name for name in required if installed(name) is None]
    other = [f"{name} {has} (pinned: {versions[name]})" for name, has in found.items() if differs(has, versions[name])]
    if missing:
        yield Check("problem", "packages", f"missing: {', '.join(missing)}; {SET_UP}")
    if other:
        yield Check("warning", "packages", f"{', '.join(other)}: results may differ in the last bits; {INSTALL}")
    if not missing and not other:
        listed = ", ".join(f"{name} {found[name]}" for name in LISTED if name in found)
        yield Check("ok", "packages", f"{listed}; all {len(found)} as pinned in {CONSTRAINTS}")


def pins(path: Path) -> dict[str, str]:
    """Return the pinned version of each package in a requirements file."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def installed(name: str) -> str | None:
    """Return the version of a package without importing it; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def differs(has: str, pinned: str) -> bool:
    """Return whether two versions differ, apart from a build suffix such as +cpu."""
    return has.partition("+")[0] != pinned


def gpu() -> Iterator[Check]:
    """Check each NVIDIA GPU, and that PyTorch can use it."""
    if shutil.which("nvidia-smi") is None:
        yield Check("ok", "GPU", "no GPU: the CPU is used")
        return
    listed = output_of("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if not listed:
        yield Check("warning", "GPU", "nvidia-smi lists no GPU: the CPU is used; run `nvidia-smi` for the reason")
        return
    cuda = cuda_version()
    for line in listed.splitlines():
        card = "{}, {}, driver {}".format(*line.split(", "))
        if cuda:
            yield Check("ok", "GPU", f"{card}, CUDA {cuda}")
        else:
            yield Check("warning", "GPU", f"{card}, but PyTorch cannot use it: the CPU is used; {INSTALL}")


def cuda_version() -> str | None:
    """Return the CUDA version of PyTorch; None if PyTorch cannot use a GPU."""
    try:
        import torch  # noqa: PLC0415 (takes seconds, and may be missing)
    except ImportError:
        return None
    return torch.version.cuda if torch.cuda.is_available() else None


def processor() -> Iterator[Check]:
    """Check cores and memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = f"{os.cpu_count()} cores, {memory / 1e9:.0f} GB of memory"
    if memory < LITTLE_MEMORY:
        yield Check("warning", "machine", f"{total}: if memory runs out, lower batch_size or image_size")
    else:
        yield Check("ok", "machine", total)


def disk() -> Iterator[Check]:
    """Check the free disk space of the repository."""
    free = shutil.disk_usage(".").free
    if free < LITTLE_DISK:
        yield Check("warning", "disk", f"{free / 1e9:.1f} GB free; `dvc gc --workspace` removes old outputs")
    else:
        yield Check("ok", "disk", f"{free / 1e9:.0f} GB free")


def dvc() -> Iterator[Check]:
    """Check that DVC is installed, and whether it links outputs to its cache or copies them."""
    has = installed("dvc")
    if has is None:
        yield Check("problem", "DVC", f"not installed: {SET_UP}")
        return
    report = output_of(sys.executable, "-m", "dvc", "doctor") or ""
    supported = re.search(r"^Cache types: (.*)$", report, re.MULTILINE)
    wanted = (output_of(sys.executable, "-m", "dvc", "config", "cache.type") or "reflink,copy").split(",")
    if supported is None:
        yield Check("problem", "DVC", f"{has}, but this is not a DVC repository: run from the top of a clone")
    elif "no-dvc-cache" in supported[1]:
        yield Check("ok", "DVC", f"{has}; the types of links are known after the first `dvc repro`")
    else:
        yield link_type(has, wanted, re.findall(r"reflink|hardlink|symlink", supported[1]))


def link_type(has: str, wanted: list[str], supported: list[str]) -> Check:
    """Check that one of the `wanted` types of links is `supported` by the file system."""
    used = next((kind for kind in wanted if kind in supported), "copy")
    message = f"{has}, outputs by {used} (supported links: {', '.join(supported) or 'none'})"
    if used == "copy":
        hint = "each output is stored twice; `dvc config cache.type reflink,hardlink,symlink,copy`"
        return Check("warning", "DVC", f"{message}: {hint}")
    return Check("ok", "DVC", message)


def output_of(*command: str) -> str | None:
    """Return the output of a program; None if it is missing, fails, or exceeds `TIMEOUT`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)  # noqa: S603 (our own arguments)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
