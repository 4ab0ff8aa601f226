"""Fixtures and markers that all tests share."""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pandas as pd
import pytest

from cxr.datasets.nih import read_table
from tests.fixtures.project import ROOT

# A shell lets programs that it starts in the background ignore SIGINT, and the programs that they start inherit this.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules, helpers and fixtures that start processes or train networks. A test that uses one of them, directly or
# through its fixtures and helpers, gets the marker `slow`.
SLOW_NAMES = {"subprocess", "train_project", "trained"}


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the real images and tables are missing: there is no folder ../shared")
    return folder


@pytest.fixture(scope="session")
def real_table(shared: Path) -> pd.DataFrame:
    return read_table(shared / "nih-metadata")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests before pytest selects tests by marker."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_NAMES & names_used(item):
            item.add_marker("slow")


def names_used(test: pytest.Function) -> set[str]:
    """Return the names that a test uses: in its own code, its fixtures, and functions of tests/ that these call."""
    fixtures = [getattr(test.module, name, None) for name in test.fixturenames]
    pending: list[Any] = [test.function, *fixtures]
    names = set(test.fixturenames)
    while pending:
        function = inspect.unwrap(pending.pop())
        if isinstance(function, FunctionType) and function.__module__.startswith("tests."):
            new = set(names_in(function.__code__)) - names
            names |= new
            pending += [function.__globals__.get(name) for name in new]
    return names


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the global names and attributes that code uses, those of nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
