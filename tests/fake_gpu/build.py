"""Build the fake GPU: a CUDA runtime, cuBLAS, cuDNN and driver that count what they are asked for and compute nothing.

With it, PyTorch's own CUDA code runs on a machine without a GPU, up to the launch of each kernel: the dispatcher, the
caching allocator, autocast, the fused optimizer, and all checks for synchronisation and nondeterminism. It implements
the functions that PyTorch 2.11 for CUDA 13 calls for this project's networks; another one ends with its name as a
missing symbol, or with an error of the real library, and is added here.

`python -m tests.fake_gpu.build` prints the variables with which any program runs on it. Without PyTorch's cache of
memory, the result of every kernel is zero, and runs can be compared. torch.compile generates kernels, which need a real
GPU: set `TORCH_COMPILE_DISABLE=1`.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from cxr.core.files import atomic_write

SOURCES = Path(__file__).parent
DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
CACHE = Path(tempfile.gettempdir())
NO_MEMORY_CACHE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def missing_requirement() -> str | None:
    """Return why the fake GPU cannot be built here; None if it can."""
    if shutil.which("g++") is None:
        return "there is no g++"
    if torch.version.cuda is None:
        return "PyTorch is built without CUDA"
    if torch.cuda.is_available():
        return "there is a real GPU"
    return None if importlib.util.find_spec("nvidia") else "the headers of CUDA are missing"


def build() -> dict[str, str]:
    """Build the libraries unless a folder has them; return the environment variables that load them."""
    sources = sorted(path for path in SOURCES.rglob("*") if path.suffix in (".cpp", ".h"))
    digest = hashlib.sha256(torch.__version__.encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = CACHE / f"cxr-fake-gpu-{digest[:16]}"
    if not folder.exists():
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            compile_libraries(temporary)
    return {"LD_PRELOAD": str(folder / "libfake.so"), "LD_LIBRARY_PATH": str(folder), "CUDA_VISIBLE_DEVICES": "0"}


def compile_libraries(folder: Path) -> None:
    """Compile the libraries into `folder`, with the headers of the packages that PyTorch installs."""
    spec = importlib.util.find_spec("nvidia")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    packages = Path(spec.submodule_search_locations[0])
    includes = [f"-I{SOURCES / 'include'}", *(f"-I{path}" for path in sorted(packages.glob("*/include")))]
    runtime = [str(SOURCES / name) for name in ("runtime.cpp", "libraries.cpp", "graph.cpp", "nothing.cpp")]
    compiler = ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-w"]
    subprocess.run([*compiler, *includes, *runtime, "-o", str(folder / "libfake.so")], check=True)
    for name in DRIVER_LIBRARIES:
        subprocess.run([*compiler, str(SOURCES / "driver.cpp"), "-o", str(folder / name)], check=True)


if __name__ == "__main__":
    print(" ".join(f"{name}={value}" for name, value in (build() | NO_MEMORY_CACHE).items()))
