"""`python -m tools.predict FILE…`: predict image files."""

import cxr.core.threads  # noqa: F401 (must precede the import of PyTorch)

# isort: split
from cxr.core.errors import run_as_script
from tools.predict.command import main

run_as_script(main)
