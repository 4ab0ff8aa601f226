"""`make fuzz`: the tests of this folder repeat with random inputs until `FUZZ_MINUTES` have passed."""

import os
import time

import pytest

from tests.fuzz.harness import COUNTS

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
NAMES: list[str] = []  # of the selected tests of this folder


def pytest_collection_finish(session: pytest.Session) -> None:
    NAMES.extend(item.nodeid for item in session.items if "tests/fuzz/" in item.nodeid)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Repeat a test for its share of the minutes, or until it fails; without minutes, leave it to pytest."""
    end = time.monotonic() + 60 * MINUTES / len(NAMES)
    if not MINUTES:
        return None
    while time.monotonic() < end:
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MINUTES:
        for name, count in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{count:>9,} inputs of {name}")
        terminalreporter.write_line(f"{COUNTS.total():>9,} inputs in total")
