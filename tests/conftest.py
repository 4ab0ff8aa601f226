"""What the tests share: the real data where it is there, small folders in NIH's layout, and stages run for real."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cxr.core.labels import CLASSES
from cxr.datasets.nih import read_table
from tests.project import ROOT

# Before PyTorch loads, as the stages do it: threads that wait must sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Row = tuple[str, str, int]  # an image's name, its labels joined by |, its patient
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared: the real images and tables are not here")
    return folder


@pytest.fixture(scope="session")
def real_table(shared: Path) -> pd.DataFrame:
    return read_table(shared / "nih-metadata")


class Terminal(io.StringIO):
    """What is written to it, and that a person is watching."""

    def isatty(self) -> bool:
        return True


def play_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as the error stream, on which bars show; no fixture, whose stream pytest would replace by its own."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def assert_time_left(shown: str, what: str) -> None:
    """A bar of `what` told the time that is left; at its start that is a question mark."""
    assert re.search(rf"{re.escape(what)}: +\d+%\|.*\[\d\d:\d\d<(\d\d:\d\d|\?), .*\]", shown)


def numbered_rows(count: int, each: int = 1) -> list[Row]:
    """`count` rows, the classes in turn, `each` images a patient."""
    return [(f"{number:08d}_000.png", CLASSES[number % 15], number // each) for number in range(count)]


def write_nih(folder: Path, rows: Sequence[Row], side: int = 16) -> Path:
    """Write NIH's v2020 table of `rows` and `images/*.png`, noise of `side` pixels that differs from row to row."""
    (folder / "images").mkdir(parents=True)
    lines = [f"{image},{labels},0,{patient},57,M,PA,2682,2749,0.143,0.143" for image, labels, patient in rows]
    text = "\n".join([HEADER, *lines]) + "\n"
    (folder / "Data_Entry_2017_v2020.csv").write_text(text, encoding="utf-8")
    for number, (image, _, _) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image)
    return folder


def write_params(folder: Path, **changes: Any) -> None:
    """Write the committed params.yaml with `changes`, whose names may be dotted: `**{"sample.size": 5}`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        *outer, last = name.split(".")
        section = params
        for key in outer:
            section = section[key]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run_stage(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m stages.NAME` in `folder`, as a process of its own."""
    return run_module(f"stages.{name}", folder)


def run_module(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m NAME` in `folder`, as a process of its own."""
    command = [sys.executable, "-m", name, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one message that a failed process ended with; nothing but our own warnings may come before it."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    before, error, message = done.stderr.partition("error: ")
    assert error
    assert "error: " not in message
    assert all(line.startswith("warning: ") for line in before.splitlines())
    return error + message


def files_in(folder: Path) -> set[str]:
    """The paths of all files in `folder`, hidden ones too: a leftover `.partial` shows."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
