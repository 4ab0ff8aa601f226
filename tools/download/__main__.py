"""`python -m tools.download DIR`: download NIH ChestX-ray14."""

from cxr.core.errors import run_as_script
from tools.download.command import main

run_as_script(main)
