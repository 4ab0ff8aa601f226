"""`python -m tools.phantom OUT`: generate a phantom data set."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from cxr.core.errors import run_as_script
from tools.phantom.dataset import main

run_as_script(main)
