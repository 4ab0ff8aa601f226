"""`python -m tools.evaluate --labels DATA (--predictions FILE | --model FILE …) --output FOLDER`."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
from cxr.core.errors import run_as_script
from cxr.core.interrupts import exit_on_sigterm
from tools.evaluate.command import main

exit_on_sigterm()
run_as_script(main)
