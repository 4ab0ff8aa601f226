"""What the tests share: the real data where it is there, small folders in NIH's layout, and stages run for real."""

from pathlib import Path

import pandas as pd
import pytest

import cxr.core.threads  # noqa: F401 (must precede the import of PyTorch)
from cxr.datasets.nih import read_table
from tests.fixtures.project import ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared: the real images and tables are not here")
    return folder


@pytest.fixture(scope="session")
def real_table(shared: Path) -> pd.DataFrame:
    return read_table(shared / "nih-metadata")
