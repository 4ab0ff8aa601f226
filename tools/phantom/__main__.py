"""`python -m tools.phantom OUT`: generate a phantom data set."""

from cxr.core.errors import run_as_script
from tools.phantom.dataset import main

run_as_script(main)
