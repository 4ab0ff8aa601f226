"""`python -m tools.doctor`: check the machine, the packages, the parameters and the data."""

from cxr.core.errors import run_as_script
from tools.doctor.command import main

run_as_script(main)
