"""Check whether `dvc repro` can run here: the machine, packages, parameters, weights and data.

Prints a line for each check, with a remedy for each warning and problem. The exit code is 1 if `dvc repro` would fail.
"""

import argparse
import sys
from collections.abc import Iterator

from tools.doctor import machine
from tools.doctor.checks import SET_UP, Check

EXAMPLES = """example:
  python -m tools.doctor
"""


def run_checks() -> Iterator[Check]:
    """Yield the result of each check."""
    yield from machine.run_checks()
    try:
        from tools.doctor import project  # noqa: PLC0415 (the packages that it imports may be missing)
    except ImportError as error:
        yield Check("problem", "project", f"parameters and data cannot be checked: {error}; {SET_UP}")
        return
    yield from project.run_checks()


def main() -> None:
    """Print all results; exit with 1 if one is a problem."""
    argparse.ArgumentParser(
        "python -m tools.doctor",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    has_problem = False
    for check in run_checks():
        print(check, flush=True)
        has_problem |= check.level == "problem"
    if has_problem:
        sys.exit(1)
