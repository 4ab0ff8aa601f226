"""`python -m tools.download DIR`: get the real data set."""

from cxr.core.errors import run_as_script
from tools.download.command import main

run_as_script(main)
