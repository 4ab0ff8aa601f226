"""The command: a line for each thing that was looked at, and exit code 1 where `dvc repro` could not run."""

import argparse
import sys
from collections.abc import Iterator

from tools.doctor import machine
from tools.doctor.remarks import Remark


def remarks() -> Iterator[Remark]:
    """All there is to say, as it is found out."""
    yield from machine.remarks()
    try:
        from tools.doctor import project  # noqa: PLC0415 (what it imports may be missing)
    except ImportError as error:
        yield Remark("problem", "project", f"parameters and data cannot be looked at: {error}; `make repro` installs")
        return
    yield from project.remarks()


def main() -> None:
    """Print every line, and exit with 1 where one is a problem."""
    argparse.ArgumentParser(
        "python -m tools.doctor", description="Say whether `dvc repro` could run here."
    ).parse_args()
    is_hopeless = False
    for remark in remarks():
        print(remark, flush=True)
        is_hopeless |= remark.level == "problem"
    if is_hopeless:
        sys.exit(1)
