from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.prediction import predict_logits
from cxr.training.losses import multi_label_loss, pos_weights
from cxr.training.params import Loss, TrainParams
from cxr.training.trainer import LabelledImages, Trainer
from stages.train import load_data
from tests.fixtures.planted import EVERYTHING, MODEL, write_planted, write_planted_params

CPU = torch.device("cpu")
Data = tuple[LabelledImages, LabelledImages]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    train, val, *_ = load_data(CPU)
    return train, val


def start(labels: Tensor | None = None, **changes: object) -> Trainer:
    write_planted_params(Path.cwd(), **changes)
    params = read_params(TrainParams)
    torch.manual_seed(1)
    architecture = Architecture(MODEL, 1, 32, params.attention_pool)
    classifier = build_classifier(architecture, None, params.drop_rate, params.drop_path_rate)
    return Trainer(classifier, params, torch.eye(15) if labels is None else labels)


def test_the_planted_signal_is_learnt(planted: Data) -> None:
    training = start()
    rows = [training.run_epoch(1, *planted) for _ in range(8)]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert training.best_auroc > 0.8
    assert training.best_auroc == max(row["val_auroc"] for row in rows)
    assert rows[training.best_epoch - 1]["val_auroc"] == training.best_auroc


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_restored_training_goes_on_to_the_same_bits(planted: Data, changes: dict[str, Any]) -> None:
    whole, first, second = (start(planted[0].labels, **changes) for _ in range(3))
    for _ in range(3):
        whole.run_epoch(1, *planted)
    first.run_epoch(1, *planted)
    second.restore(first.state())
    for _ in range(2):
        second.run_epoch(1, *planted)
    assert second.curve == whole.curve
    for ours, theirs in ((second.classifier, whole.classifier), (second.result, whole.result)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
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
    training = start(lr=0.01, T_0=2, T_mult=2)
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


@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well(planted: Data, amp_dtype: str) -> None:
    training = start(amp_dtype=amp_dtype)
    rows = [training.run_epoch(1, *planted) for _ in range(2)]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_a_loss_that_is_not_finite_is_named_with_epoch_and_step(planted: Data) -> None:
    training = start()
    training.run_epoch(1, *planted)
    with torch.no_grad():
        next(training.classifier.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"loss is nan at epoch 2, step \d+ of 9"):
        training.run_epoch(1, *planted)


def weights_after_each_step(training: Trainer, planted: Data, steps: int) -> list[dict[str, Tensor]]:
    train = planted[0]
    pixels = next(train.pixels.batches([np.arange(16)]))
    found = []
    for _ in range(steps):
        training.step(pixels, train.labels[:16])
        found.append({name: tensor.clone() for name, tensor in training.classifier.state_dict().items()})
    return found


def test_the_average_is_its_closed_form(planted: Data) -> None:
    """After the n-th step it keeps min(decay, 1 - n^(-2/3)) of itself, n counted from 1: none of the first weights."""
    training = start(ema_decay=0.6)
    average: dict[str, Tensor] = {}
    for number, weights in enumerate(weights_after_each_step(training, planted, 8), 1):
        kept = min(0.6, 1 - number ** (-2 / 3))
        average = {name: kept * average.get(name, 0) + (1 - kept) * tensor for name, tensor in weights.items()}
    for name, tensor in training.result.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, average[name], rtol=1e-4, atol=1e-6)
    assert training.result is not training.classifier


def test_the_average_is_what_is_validated_and_kept(planted: Data) -> None:
    training = start(ema_decay=0.99)
    row = training.run_epoch(1, *planted)
    assert all(torch.equal(training.best_weights[name], it) for name, it in training.result.state_dict().items())
    assert not torch.equal(training.result.backbone.conv1[0].weight, training.classifier.backbone.conv1[0].weight)  # type: ignore[index, union-attr]
    logits = predict_logits(training.result, planted[1].pixels, 16)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, planted[1].labels)
    assert row["val_loss"] == pytest.approx(loss.item())


def test_training_ends_when_no_epoch_is_better_for_so_long(planted: Data) -> None:
    training = start(patience=2, epochs=50)
    training.run_epoch(1, *planted)
    training.best_auroc = 1.0
    ended = []
    for _ in range(2):
        ended.append(training.is_finished)
        training.run_epoch(1, *planted)
    assert [*ended, training.is_finished] == [False, False, True]
    assert not start(patience=0, epochs=50).is_finished


def test_a_restored_training_is_as_finished_as_it_was(planted: Data) -> None:
    training = start(epochs=1)
    training.run_epoch(1, *planted)
    again = start(epochs=1)
    again.restore(training.state())
    assert again.is_finished


def test_gradients_are_clipped_to_the_norm(planted: Data) -> None:
    """Of plain gradient descent with rate 1 a step is as long as its gradient."""
    lengths = {}
    for clip_norm in (0.0, 0.01):
        training = start(grad_clip_norm=clip_norm)
        training.optimizer = torch.optim.SGD(training.classifier.parameters(), 1.0)  # type: ignore[assignment]
        before = [parameter.detach().clone() for parameter in training.classifier.parameters()]
        weights_after_each_step(training, planted, 1)
        after = training.classifier.parameters()
        moves = [(new.detach() - old).square().sum() for old, new in zip(before, after, strict=True)]
        lengths[clip_norm] = float(torch.stack(moves).sum().sqrt())
    assert lengths[0.0] > 0.1
    assert lengths[0.01] == pytest.approx(0.01, rel=1e-3)


def test_the_loss_starts_at_that_of_the_prevalence(planted: Data) -> None:
    labels = planted[0].labels
    training = start(labels, prior_bias=True)
    bias = training.classifier.backbone.fc.bias  # type: ignore[union-attr]
    torch.testing.assert_close(bias.sigmoid(), labels.mean(dim=0), atol=0.01, rtol=0)  # type: ignore[operator]


def test_the_wanted_loss_is_made_small(planted: Data) -> None:
    wanted = Loss(max_pos_weight=3, focal_gamma=2, label_smoothing=0.1)
    labels = planted[0].labels
    training = start(labels, loss=wanted.model_dump())
    pixels = next(planted[0].pixels.batches([np.arange(16)]))
    with torch.no_grad():
        logits = training.classifier.train()(pixels)
    expected = multi_label_loss(logits, labels[:16], wanted, pos_weights(labels, 3))
    torch.testing.assert_close(start(labels, loss=wanted.model_dump()).step(pixels, labels[:16]), expected)


def test_stages_unfreeze_on_time(planted: Data) -> None:
    training = start(unfreeze_epochs=1, epochs=10)
    moved = []
    for _ in range(4):
        before = {name: tensor.clone() for name, tensor in training.classifier.backbone.state_dict().items()}
        training.run_epoch(1, *planted)
        after = training.classifier.backbone.state_dict()
        names = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(after[name], tensor)}
        moved.append(names)
    assert moved == [{"fc"}, {"fc", "layer4"}, {"fc", "layer4", "layer3"}, {"fc", "layer4", "layer3", "layer2"}]
