"""`dvc repro` with nothing to do, in this checkout after a real run.

Run: `python -m benchmarks.no_op` (half a minute).
"""

import argparse
import subprocess
import sys

from benchmarks.data import ROOT
from benchmarks.timing import alternate, show, show_machine


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often it is run")
    arguments = parser.parse_args()
    show_machine(("dvc",))
    if "up to date" not in repro("--dry"):
        sys.exit("error: dvc repro has something to do here; run it first")
    show("Nothing to do", alternate({"dvc repro": repro}, arguments.rounds), 1, "run", "dvc repro")


def repro(*options: str) -> str:
    """What `dvc repro` prints."""
    command = ["dvc", "repro", *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
