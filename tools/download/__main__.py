"""`python -m tools.download DIR`: download NIH ChestX-ray14."""

from cxr.core.errors import run_as_script
from cxr.core.interrupts import exit_on_sigterm
from tools.download.command import main

exit_on_sigterm()
run_as_script(main)
