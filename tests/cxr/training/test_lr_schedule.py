import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler

from cxr.training.lr_schedule import lr_multiplier
from tests.fixtures.planted import train_params


def pytorch_rates(schedule: type[LRScheduler], steps: int, *settings: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler, found = schedule(optimizer, *settings), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@given(length=st.integers(1, 12), factor=st.integers(1, 3), within=st.floats(0, 0.99))
def test_warm_restarts_equal_those_of_pytorch_by_whole_epochs(length: int, factor: int, within: float) -> None:
    params = train_params(lr_schedule="cosine_restarts", T_0=length, T_mult=factor, epochs=40)
    found = [lr_multiplier(epoch + within, params) for epoch in range(40)]
    np.testing.assert_allclose(found, pytorch_rates(CosineAnnealingWarmRestarts, 40, length, factor), atol=1e-12)


def test_one_cosine_equals_that_of_pytorch_by_steps() -> None:
    params = train_params(lr_schedule="cosine", epochs=5)
    found = [lr_multiplier(step / 10, params) for step in range(50)]
    np.testing.assert_allclose(found, pytorch_rates(CosineAnnealingLR, 50, 50), atol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine_restarts", "cosine"])
def test_the_schedule_begins_after_a_linear_warm_up(schedule: str) -> None:
    params = train_params(lr_schedule=schedule, warmup_epochs=2, epochs=10, T_0=4)
    assert [lr_multiplier(progress, params) for progress in (0, 0.5, 1, 1.5, 2)] == [0, 0.25, 0.5, 0.75, 1]
    assert lr_multiplier(6, params) == pytest.approx(1 if schedule == "cosine_restarts" else 0.5)
    assert lr_multiplier(10, train_params(lr_schedule="cosine", warmup_epochs=2, epochs=10)) == pytest.approx(0)
