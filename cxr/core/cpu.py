"""Settings of the numerical libraries that must be made before they are imported: programs import this module first.

Libraries choose their code by the processor that they find, and each code rounds differently. On x86-64 processors with
AVX2, these settings let all of them use the code that every such processor can run, so that a CPU computes the same
bits on all of them. `CXR_PORTABLE=0` in the environment leaves the choice to the libraries. A variable that is already
set is kept.
"""

import os
import platform
from pathlib import Path

import cxr.core.interrupts  # noqa: F401 (must precede imports that take seconds)

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN, which computes PyTorch's convolutions
    # MKL, which computes PyTorch's matrix products. Its AVX2 mode is ignored on processors of AMD.
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # all groups of NumPy 2.4 beyond AVX2
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's copies of OpenBLAS; scikit-learn uses SciPy's
}
# On all processors, since the default of both depends on the machine.
ALWAYS = {
    # Idle threads sleep. While they spin, a training step on a busy CPU takes up to 75 times longer.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",  # one thread per core otherwise, and each number adds in another order
}
# Numba needs no setting: what it compiles here computes with integers.


def is_portable() -> bool:
    """Return whether `PORTABLE` applies: on an x86-64 processor with AVX2, unless `CXR_PORTABLE` is 0."""
    return os.environ.get("CXR_PORTABLE", "1") != "0" and has_avx2()


def has_avx2() -> bool:
    """Return whether this is an x86-64 processor with AVX2, as Linux lists it."""
    flags = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and flags.exists() and " avx2 " in flags.read_text(encoding="utf-8")


def settings() -> dict[str, str | None]:
    """Return the value of each variable that `configure` sets, None for those that are not set."""
    return {name: os.environ.get(name) for name in (*PORTABLE, *ALWAYS)}


def configure() -> None:
    """Set the variables in the environment of this process and of those that it starts."""
    for name, value in {**(PORTABLE if is_portable() else {}), **ALWAYS}.items():
        os.environ.setdefault(name, value)


configure()
