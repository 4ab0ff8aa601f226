"""`python -m tools.export`: write the ensemble as an ONNX file."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from cxr.core.errors import run_as_script
from tools.export.command import main

run_as_script(main)
