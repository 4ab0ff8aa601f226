"""Check whether the pinned packages exist for this Python and this operating system, before pip looks for them.

`make` runs this module alone with any Python 3.7 or newer, so it uses nothing that came later.
"""

from __future__ import annotations

import sys

OLDEST, NEWEST = (3, 11), (3, 14)


def unsupported(version: tuple[int, ...], platform: str) -> str | None:
    """Return why the project cannot run with a version of Python on a platform, and what to do; None if it can."""
    if platform == "win32":
        return "Windows is supported in the Windows Subsystem for Linux alone: install WSL, and run the project in it"
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        found = ".".join(map(str, version[:3]))
        return (
            f"Python {found}: the pinned packages exist for Python 3.11 to 3.14; install one of these, and run "
            "`make repro PYTHON=python3.11`"
        )
    return None


def check() -> None:
    """End the program with one line if the project cannot run here."""
    problem = unsupported(sys.version_info[:3], sys.platform)
    if problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    check()
