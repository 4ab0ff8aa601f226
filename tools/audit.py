"""List the known advisories of the packages in constraints.txt, from the database of OSV (https://osv.dev).

    python -m tools.audit

Sends names and versions to api.osv.dev. The exit code is 1 if there are advisories, and 0 if there are none or the
database cannot be reached, which a warning states. Needs only the standard library.
"""

import argparse
import json
import sys
import urllib.request
from typing import Any

from cxr.core.errors import InputError, run_as_script, warn
from tools.doctor.machine import CONSTRAINTS, pins

DATABASE = "https://api.osv.dev/v1/querybatch"  # documented at https://google.github.io/osv.dev/post-v1-querybatch/
ADVISORY = "https://osv.dev/vulnerability/"
TIMEOUT = 30  # seconds


def find_advisories(versions: dict[str, str]) -> dict[str, list[str]]:
    """Return the IDs of the advisories of each package that has any.

    Raises:
        OSError: if the database cannot be reached.
        InputError: if its answer is not in the documented format.
    """
    packages = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in versions.items()
    ]
    try:
        answer = post({"queries": packages})
        found = [[one["id"] for one in result.get("vulns", [])] for result in answer["results"]]
        return {name: ids for name, ids in zip(versions, found, strict=True) if ids}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{DATABASE} returned an answer of an unknown format") from None


def post(content: dict[str, Any]) -> Any:
    """Send JSON to the database and return its answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(DATABASE, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 (a constant)
        return json.load(answer)


def main() -> None:
    """Print a line for each advisory, and the number of packages."""
    argparse.ArgumentParser(
        "python -m tools.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    versions = pins(CONSTRAINTS)
    try:
        advisories = find_advisories(versions)
    except OSError as error:
        warn(f"SKIPPED: the advisories are unknown, since {DATABASE} cannot be reached: {error}")
        return
    for name, ids in advisories.items():
        print(f"{name} {versions[name]}: {' '.join(ADVISORY + one for one in ids)}")
    print(f"{len(advisories)} of {len(versions)} packages have known advisories")
    if advisories:
        sys.exit(1)


if __name__ == "__main__":
    run_as_script(main)
