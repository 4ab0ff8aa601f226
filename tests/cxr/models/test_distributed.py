"""Several processes over gloo on the CPU, started as a person starts them."""

import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.models.distributed import SINGLE, launch
from cxr.training.params import TrainParams
from stages import train
from tests.fixtures.planted import EVERYTHING, write_planted, write_planted_params
from tests.fixtures.project import start_training


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_to_the_end(folder: Path) -> dict[str, bytes]:
    training = start_training(folder)
    out, err = training.communicate(timeout=200)
    assert training.returncode == 0, out + err
    assert out.count("epoch   3 of 3") == 1
    return {path.name: path.read_bytes() for path in [folder / "data/curves.csv", *(folder / "data/models").iterdir()]}


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_one_of_two_is_killed_and_the_training_goes_on_to_the_same_bytes(folder: Path) -> None:
    write_planted_params(folder, devices=2, epochs=3, **EVERYTHING)
    whole = train_to_the_end(folder)
    for path in (folder / "checkpoints").iterdir():
        for file in [path] if path.is_file() else path.iterdir():
            file.unlink()
    training = start_training(folder)
    assert training.stdout is not None
    assert "144 images on 2 x cpu" in training.stdout.readline()
    assert "epoch   1 of 3" in training.stdout.readline()
    victim = max(children(training.pid))
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    _, err = training.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert training.returncode == 1
    assert re.search(r"error: process \d of 2 was killed \(SIGKILL\); the others were stopped: run again", err)
    assert "Traceback" not in err
    assert train_to_the_end(folder) == whole
    again = start_training(folder)
    out, err = again.communicate(timeout=60)
    assert (again.returncode, out) == (0, ""), err


def test_two_processes_compute_what_one_does(folder: Path) -> None:
    """With a network that looks at each image by itself, the averaged gradients are those of the whole batch."""
    curves = []
    for devices in (1, 2):
        write_planted_params(folder, models=["test_convnext"], devices=devices, epochs=3, mixup_alpha=0, lr=0.0003)
        train_to_the_end(folder)
        curves.append(pd.read_csv(folder / "data/curves.csv").drop(columns="member"))
    pd.testing.assert_frame_equal(curves[0], curves[1], rtol=2e-3)
    # The images are dealt anew for two, so the bits differ: it was not one process that did all.
    assert not curves[0].equals(curves[1])


def test_what_one_process_cannot_use_ends_all_with_its_message(folder: Path) -> None:
    write_planted_params(folder, devices=2, batch_size=3)
    training = start_training(folder)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 1
    assert "too small for 2 devices: raise batch_size" in err
    assert "Traceback" not in err


def test_more_devices_than_there_are_is_an_error_that_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"devices is 2, and this machine has 1: .* torchrun"):
        launch(2, "stages.train")


def test_torchrun_must_start_as_many_as_devices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert read_params(TrainParams).devices == 1
    with pytest.raises(InputError, match=r"started 3 processes, but devices is 1"):
        train.main()


def test_a_process_alone_keeps_what_it_has() -> None:
    alone, rows = SINGLE, torch.arange(6).reshape(3, 2)
    module = torch.nn.Linear(2, 2)
    assert alone.is_first
    assert alone.together(module) is module
    assert torch.equal(alone.gather(rows), rows)
    assert alone.from_first("x") == "x"
