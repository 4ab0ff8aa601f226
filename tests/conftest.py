"""What the tests share: the real data where it is there, small folders in NIH's layout, and stages run for real."""

import os
from pathlib import Path

import pandas as pd
import pytest

from cxr.datasets.nih import read_table
from tests.fixtures.project import ROOT

# Before PyTorch loads, as the stages do it: threads that wait must sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared: the real images and tables are not here")
    return folder


@pytest.fixture(scope="session")
def real_table(shared: Path) -> pd.DataFrame:
    return read_table(shared / "nih-metadata")
