from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from cxr import networks
from cxr.errors import InputError
from cxr.networks import Architecture
from cxr.params import TrainParams, read_params
from cxr.training import LabelledImages, Training
from stages.train import load_data
from tests.planted import MODEL, write_planted

CPU = torch.device("cpu")
Data = tuple[LabelledImages, LabelledImages]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    train, val, *_ = load_data(CPU)
    return train, val


def start(**changes: object) -> Training:
    params = read_params(TrainParams).model_copy(update=changes)
    torch.manual_seed(1)
    return Training(networks.build(Architecture(MODEL, 1, 32)), params, torch.zeros(1, 15))


def test_the_planted_signal_is_learnt(planted: Data) -> None:
    training = start()
    rows = [training.run_epoch(1, *planted) for _ in range(8)]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert training.best_auroc > 0.8
    assert training.best_auroc == max(row["val_auroc"] for row in rows)
    assert rows[training.best_epoch - 1]["val_auroc"] == training.best_auroc


def test_a_restored_training_goes_on_to_the_same_bits(planted: Data) -> None:
    whole, first, second = start(), start(), start()
    for _ in range(3):
        whole.run_epoch(1, *planted)
    first.run_epoch(1, *planted)
    second.restore(first.state())
    for _ in range(2):
        second.run_epoch(1, *planted)
    assert second.curve == whole.curve
    for name, tensor in whole.classifier.state_dict().items():
        assert torch.equal(second.classifier.state_dict()[name], tensor), name
    assert all(torch.equal(second.best_weights[name], tensor) for name, tensor in whole.best_weights.items())


def test_the_best_weights_are_those_of_the_best_epoch(planted: Data) -> None:
    training = start()
    training.run_epoch(1, *planted)
    best = {name: tensor.clone() for name, tensor in training.classifier.state_dict().items()}
    training.best_auroc = 1.0
    training.run_epoch(1, *planted)
    assert training.best_epoch == 1
    assert all(torch.equal(training.best_weights[name], tensor) for name, tensor in best.items())


def test_the_learning_rate_is_pytorchs_cosine_with_warm_restarts(planted: Data) -> None:
    training = start(lr=0.01, restart_epochs=2, restart_factor=2)
    rates = [training.run_epoch(1, *planted)["lr"] for _ in range(7)]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 0.01)
    schedule = CosineAnnealingWarmRestarts(optimizer, 2, 2)
    expected = []
    for _ in range(7):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, expected)
    assert rates[0] == rates[2] == rates[6] == 0.01


@pytest.mark.parametrize("mixed_precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well(planted: Data, mixed_precision: str) -> None:
    training = start(mixed_precision=mixed_precision)
    rows = [training.run_epoch(1, *planted) for _ in range(2)]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_a_loss_that_is_not_finite_is_named_with_epoch_and_step(planted: Data) -> None:
    training = start()
    training.run_epoch(1, *planted)
    broken = LabelledImages(planted[0].pixels, planted[0].labels.clone())
    broken.labels[3, 4] = float("nan")
    with pytest.raises(InputError, match=r"loss is nan at epoch 2, step \d+ of 9"):
        training.run_epoch(1, broken, planted[1])
