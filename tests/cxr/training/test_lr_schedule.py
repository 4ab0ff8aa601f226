from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler

from cxr.training.lr_schedule import lr_multiplier
from cxr.training.params import TrainParams
from tests.fixtures.project import ROOT


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
    setting = params(lr_schedule="cosine_restarts", T_0=length, T_mult=factor, epochs=40)
    found = [lr_multiplier(epoch + within, setting) for epoch in range(40)]
    np.testing.assert_allclose(found, rates(CosineAnnealingWarmRestarts, 40, length, factor), atol=1e-12)


def test_one_cosine_is_pytorchs_by_steps() -> None:
    setting = params(lr_schedule="cosine", epochs=5)
    found = [lr_multiplier(step / 10, setting) for step in range(50)]
    np.testing.assert_allclose(found, rates(CosineAnnealingLR, 50, 50), atol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine_restarts", "cosine"])
def test_a_warm_up_rises_in_a_straight_line_and_then_the_schedule_begins(schedule: str) -> None:
    setting = params(lr_schedule=schedule, warmup_epochs=2, epochs=10, T_0=4)
    assert [lr_multiplier(progress, setting) for progress in (0, 0.5, 1, 1.5, 2)] == [0, 0.25, 0.5, 0.75, 1]
    assert lr_multiplier(6, setting) == pytest.approx(1 if schedule == "restarts" else 0.5)
    assert lr_multiplier(10, params(lr_schedule="cosine", warmup_epochs=2, epochs=10)) == pytest.approx(0)
