"""Distributed training by several processes on the CPU, with the gloo backend."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.models.distributed import SINGLE, DistContext, launch
from cxr.training.params import TrainParams
from stages import train
from tests.fixtures.planted import EVERYTHING, write_planted, write_planted_params
from tests.fixtures.project import start_training

TIMEOUT = 240  # seconds for a process, which takes less than 20 on an idle machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_to_the_end(folder: Path) -> dict[str, bytes]:
    training = start_training(folder)
    out, err = training.communicate(timeout=TIMEOUT)
    assert training.returncode == 0, out + err
    assert out.count("epoch   3 of 3") == 1
    return {path.name: path.read_bytes() for path in [folder / "data/curves.csv", *(folder / "data/models").iterdir()]}


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def start_and_stop(folder: Path, number: signal.Signals) -> str:
    """Send a signal to one of two training processes (SIGKILL) or to the one that started them; return the error."""
    training = start_training(folder)
    assert training.stdout is not None
    assert "144 images on 2 x cpu" in training.stdout.readline()
    assert re.match(r"epoch   \d of 3", training.stdout.readline())
    os.kill(max(children(training.pid)) if number == signal.SIGKILL else training.pid, number)
    stopped = time.monotonic()
    _, err = training.communicate(timeout=TIMEOUT)
    assert time.monotonic() - stopped < TIMEOUT / 2
    assert training.returncode == 1
    assert "Traceback" not in err
    return err


def test_training_resumes_to_the_same_bytes_after_a_process_is_stopped(folder: Path) -> None:
    write_planted_params(folder, devices=2, epochs=3, **EVERYTHING)
    whole = train_to_the_end(folder)
    for path in (folder / "checkpoints").iterdir():
        for file in [path] if path.is_file() else path.iterdir():
            file.unlink()
    err = start_and_stop(folder, signal.SIGKILL)
    assert re.search(
        r"error: process \d of 2 was killed \(SIGKILL\); the others were stopped: run the command again", err
    )
    assert "error: stopped by SIGTERM: run the command again" in start_and_stop(folder, signal.SIGTERM)
    assert train_to_the_end(folder) == whole
    again = start_training(folder)
    out, err = again.communicate(timeout=TIMEOUT)
    assert (again.returncode, out) == (0, ""), err


def test_two_processes_give_the_result_of_one(folder: Path) -> None:
    """Without batch normalisation, the averaged gradients are those of the whole batch."""
    curves = []
    for devices in (1, 2):
        write_planted_params(folder, models=["test_convnext"], devices=devices, epochs=3, mixup_alpha=0, lr=0.0003)
        train_to_the_end(folder)
        curves.append(pd.read_csv(folder / "data/curves.csv").drop(columns="member"))
    pd.testing.assert_frame_equal(curves[0], curves[1], rtol=2e-3)
    # Sums over two shards round differently, so equal bits would mean that one process did all the work.
    assert not curves[0].equals(curves[1])


def test_an_error_in_one_process_ends_all_with_its_message(folder: Path) -> None:
    write_planted_params(folder, devices=2, batch_size=3)
    training = start_training(folder)
    _, err = training.communicate(timeout=TIMEOUT)
    assert training.returncode == 1
    assert "too small for 2 devices: raise batch_size" in err
    assert "Traceback" not in err


def test_too_few_gpus_are_an_error_that_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"devices is 2, but this machine has 1: .* torchrun"):
        launch(2, "stages.train")


def test_the_number_of_processes_must_be_devices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert read_params(TrainParams).devices == 1
    with pytest.raises(InputError, match=r"started 3 processes, but devices is 1"):
        train.main()


def test_operations_of_a_single_process_return_their_arguments() -> None:
    rows, module = torch.arange(6).reshape(3, 2), torch.nn.BatchNorm1d(2)
    assert SINGLE.is_main_process
    assert SINGLE.wrap_ddp(module) is module
    assert torch.equal(SINGLE.all_gather(rows), rows)
    assert SINGLE.broadcast("x") == "x"
    SINGLE.all_reduce(rows)
    SINGLE.all_reduce_buffers(module)
    assert torch.equal(rows, torch.arange(6).reshape(3, 2))
    assert torch.equal(module.running_var, torch.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shards_have_even_sizes_and_all_items_in_order(world_size: int) -> None:
    items = np.array([5, 2, 7, 1, 9])
    shards = [DistContext(rank, world_size).shard(items) for rank in range(world_size)]
    assert np.concatenate(shards).tolist() == items.tolist()
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
