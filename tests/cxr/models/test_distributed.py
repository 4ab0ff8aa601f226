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


def test_training_resumes_to_the_same_bytes_after_one_of_two_processes_is_killed(folder: Path) -> None:
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
    assert re.search(
        r"error: process \d of 2 was killed \(SIGKILL\); the others were stopped: run the command again", err
    )
    assert "Traceback" not in err
    assert train_to_the_end(folder) == whole
    again = start_training(folder)
    out, err = again.communicate(timeout=60)
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
    _, err = training.communicate(timeout=60)
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
