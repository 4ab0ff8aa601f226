from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler

from cxr.params import TrainParams
from cxr.schedule import share_of_highest
from tests.project import ROOT


def params(**changes: Any) -> TrainParams:
    whole = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | changes
    known = {name: whole[name] for name in TrainParams.model_fields}
    return TrainParams.model_validate(known | {"weights_dir": Path()})


def rates(schedule: type[LRScheduler], steps: int, *settings: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    pytorchs, found = schedule(optimizer, *settings), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        pytorchs.step()
    return found


@given(length=st.integers(1, 12), factor=st.integers(1, 3), within=st.floats(0, 0.99))
def test_restarts_are_pytorchs_by_whole_epochs(length: int, factor: int, within: float) -> None:
    setting = params(schedule="restarts", restart_epochs=length, restart_factor=factor, epochs=40)
    found = [share_of_highest(epoch + within, setting) for epoch in range(40)]
    np.testing.assert_allclose(found, rates(CosineAnnealingWarmRestarts, 40, length, factor), atol=1e-12)


def test_one_cosine_is_pytorchs_by_steps() -> None:
    setting = params(schedule="cosine", epochs=5)
    found = [share_of_highest(step / 10, setting) for step in range(50)]
    np.testing.assert_allclose(found, rates(CosineAnnealingLR, 50, 50), atol=1e-12)


@pytest.mark.parametrize("schedule", ["restarts", "cosine"])
def test_a_warm_up_rises_in_a_straight_line_and_then_the_schedule_begins(schedule: str) -> None:
    setting = params(schedule=schedule, warmup_epochs=2, epochs=10, restart_epochs=4)
    assert [share_of_highest(progress, setting) for progress in (0, 0.5, 1, 1.5, 2)] == [0, 0.25, 0.5, 0.75, 1]
    assert share_of_highest(6, setting) == pytest.approx(1 if schedule == "restarts" else 0.5)
    assert share_of_highest(10, params(schedule="cosine", warmup_epochs=2, epochs=10)) == pytest.approx(0)
