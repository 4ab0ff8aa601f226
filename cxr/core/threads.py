"""OpenMP setting that must be made before PyTorch is imported: idle threads sleep instead of spinning.

Programs that compute with PyTorch import this module first. OpenMP reads `OMP_WAIT_POLICY` once, when PyTorch loads it,
so setting the variable later has no effect. On a busy CPU, spinning threads make a training step up to 75 times slower.
"""

import os

import cxr.core.interrupts  # noqa: F401 (must precede imports that take seconds)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
