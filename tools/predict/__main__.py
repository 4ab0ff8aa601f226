"""`python -m tools.predict FILE…`: predict image files."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from cxr.core.errors import run_as_script
from cxr.core.interrupts import exit_on_sigterm
from tools.predict.command import main

exit_on_sigterm()
run_as_script(main)
