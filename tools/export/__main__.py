"""`python -m tools.export`: write the ensemble as ONNX."""

import os

# Before PyTorch loads: threads that wait must sleep, as in evaluate.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cxr.core.errors import run_as_script
from tools.export.command import main

run_as_script(main)
