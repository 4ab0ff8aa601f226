"""Time of `dvc repro` when every stage is up to date. Run the pipeline in this checkout first.

Run: `python -m benchmarks.no_op` (half a minute).
"""

import argparse
import subprocess
import sys

from benchmarks.data import ROOT
from benchmarks.timing import print_machine, print_times, time_alternating


def main() -> None:
    """Time `dvc repro`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="number of runs")
    args = parser.parse_args()
    print_machine(("dvc",))
    if "up to date" not in run_repro("--dry"):
        sys.exit("error: some stages are not up to date; run dvc repro first")
    print_times("Up to date", time_alternating({"dvc repro": run_repro}, args.rounds), 1, "run", "dvc repro")


def run_repro(*options: str) -> str:
    """Run `dvc repro` with `options`; return its output."""
    command = ["dvc", "repro", *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
