"""`python -m tools.doctor`: check the machine, the packages, the parameters and the data."""

from tools.doctor.supported import check

check()  # an old version of Python cannot import the modules below

# isort: split
from cxr.core.errors import run_as_script  # noqa: E402 (see above)
from tools.doctor.command import main  # noqa: E402 (see above)

run_as_script(main)
