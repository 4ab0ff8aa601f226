from collections.abc import Callable
from functools import partial
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
from cxr.models.device import translate_torch_errors
from cxr.models.prediction import predict_logits
from cxr.training.data import LabelledImages, load_training_data
from cxr.training.losses import multi_label_loss, pos_weights
from cxr.training.params import Loss, TrainParams
from cxr.training.trainer import Trainer
from tests.fixtures.planted import EVERYTHING, MODEL, write_planted, write_planted_params

CPU = torch.device("cpu")
TrainAndVal = tuple[LabelledImages, LabelledImages]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainAndVal:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = load_training_data(CPU)
    return data.train, data.val


def make_trainer(labels: Tensor | None = None, **changes: object) -> Trainer:
    write_planted_params(Path.cwd(), **changes)
    params = read_params(TrainParams)
    torch.manual_seed(1)
    architecture = Architecture(MODEL, 1, 32, params.attention_pool)
    classifier = build_classifier(architecture, None, params.drop_rate, params.drop_path_rate)
    return Trainer(classifier, params, torch.eye(15) if labels is None else labels)


@pytest.mark.slow
def test_the_planted_signal_is_learned(planted: TrainAndVal) -> None:
    trainer = make_trainer()
    rows = [trainer.run_epoch(1, *planted) for _ in range(8)]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert trainer.best_auroc > 0.8
    assert trainer.best_auroc == max(row["val_auroc"] for row in rows)
    assert rows[trainer.best_epoch - 1]["val_auroc"] == trainer.best_auroc


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_resumed_training_gives_the_same_bits(planted: TrainAndVal, changes: dict[str, Any]) -> None:
    whole, first, second = (make_trainer(planted[0].labels, **changes) for _ in range(3))
    for _ in range(3):
        whole.run_epoch(1, *planted)
    first.run_epoch(1, *planted)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.run_epoch(1, *planted)
    assert second.curve == whole.curve
    for ours, theirs in ((second.classifier, whole.classifier), (second.eval_model, whole.eval_model)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    assert all(torch.equal(second.best_weights[name], tensor) for name, tensor in whole.best_weights.items())


def test_the_best_weights_are_those_of_the_best_epoch(planted: TrainAndVal) -> None:
    trainer = make_trainer()
    trainer.run_epoch(1, *planted)
    best = {name: tensor.clone() for name, tensor in trainer.classifier.state_dict().items()}
    trainer.best_auroc = 1.0
    trainer.run_epoch(1, *planted)
    assert trainer.best_epoch == 1
    assert all(torch.equal(trainer.best_weights[name], tensor) for name, tensor in best.items())


@pytest.mark.slow
def test_the_learning_rate_is_pytorchs_cosine_with_warm_restarts(planted: TrainAndVal) -> None:
    trainer = make_trainer(lr=0.01, T_0=2, T_mult=2)
    rates = [trainer.run_epoch(1, *planted)["lr"] for _ in range(7)]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 0.01)
    schedule = CosineAnnealingWarmRestarts(optimizer, 2, 2)
    expected = []
    for _ in range(7):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, expected)
    assert rates[0] == rates[2] == rates[6] == 0.01


@pytest.mark.slow
@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well(planted: TrainAndVal, amp_dtype: str) -> None:
    trainer = make_trainer(amp_dtype=amp_dtype)
    rows = [trainer.run_epoch(1, *planted) for _ in range(2)]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_a_loss_that_is_not_finite_is_named_with_epoch_and_step(planted: TrainAndVal) -> None:
    trainer = make_trainer()
    trainer.run_epoch(1, *planted)
    with torch.no_grad():
        next(trainer.classifier.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"loss is nan at epoch 2, step \d+ of 9"):
        trainer.run_epoch(1, *planted)


def weights_after_each_step(trainer: Trainer, planted: TrainAndVal, steps: int) -> list[dict[str, Tensor]]:
    train = planted[0]
    images = next(train.images.batches([np.arange(16)]))
    found = []
    for _ in range(steps):
        trainer.step(images, train.labels[:16])
        found.append({name: tensor.clone() for name, tensor in trainer.classifier.state_dict().items()})
    return found


def test_the_moving_average_is_its_closed_form(planted: TrainAndVal) -> None:
    """After step n, counted from 1, the decay is min(ema_decay, 1 - n^(-2/3)); the initial weights have no effect."""
    trainer = make_trainer(ema_decay=0.6)
    ema: dict[str, Tensor] = {}
    for number, weights in enumerate(weights_after_each_step(trainer, planted, 8), 1):
        decay = min(0.6, 1 - number ** (-2 / 3))
        ema = {name: decay * ema.get(name, 0) + (1 - decay) * tensor for name, tensor in weights.items()}
    for name, tensor in trainer.eval_model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, ema[name], rtol=1e-4, atol=1e-6)
    assert trainer.eval_model is not trainer.classifier


def test_the_moving_average_is_validated_and_kept(planted: TrainAndVal) -> None:
    trainer = make_trainer(ema_decay=0.99)
    row = trainer.run_epoch(1, *planted)
    assert all(torch.equal(trainer.best_weights[name], it) for name, it in trainer.eval_model.state_dict().items())
    assert not torch.equal(trainer.eval_model.backbone.conv1[0].weight, trainer.classifier.backbone.conv1[0].weight)  # type: ignore[index, union-attr]
    logits = predict_logits(trainer.eval_model, planted[1].images, 16)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, planted[1].labels)
    assert row["val_loss"] == pytest.approx(loss.item())


def test_training_ends_after_patience_epochs_without_improvement(planted: TrainAndVal) -> None:
    trainer = make_trainer(patience=2, epochs=50)
    trainer.run_epoch(1, *planted)
    trainer.best_auroc = 1.0
    ended = []
    for _ in range(2):
        ended.append(trainer.is_finished)
        trainer.run_epoch(1, *planted)
    assert [*ended, trainer.is_finished] == [False, False, True]
    assert not make_trainer(patience=0, epochs=50).is_finished


def test_a_resumed_training_is_finished_if_it_was(planted: TrainAndVal) -> None:
    trainer = make_trainer(epochs=1)
    trainer.run_epoch(1, *planted)
    again = make_trainer(epochs=1)
    again.load_state_dict(trainer.state_dict())
    assert again.is_finished


def test_gradients_are_clipped_to_the_norm(planted: TrainAndVal) -> None:
    """A step of gradient descent with learning rate 1 is as long as the gradient."""
    lengths = {}
    for clip_norm in (0.0, 0.01):
        trainer = make_trainer(grad_clip_norm=clip_norm)
        trainer.optimizer = torch.optim.SGD(trainer.classifier.parameters(), 1.0)  # type: ignore[assignment]
        before = [parameter.detach().clone() for parameter in trainer.classifier.parameters()]
        weights_after_each_step(trainer, planted, 1)
        after = trainer.classifier.parameters()
        moves = [(new.detach() - old).square().sum() for old, new in zip(before, after, strict=True)]
        lengths[clip_norm] = float(torch.stack(moves).sum().sqrt())
    assert lengths[0.0] > 0.1
    assert lengths[0.01] == pytest.approx(0.01, rel=1e-3)


def test_prior_bias_starts_from_the_prevalence(planted: TrainAndVal) -> None:
    labels = planted[0].labels
    trainer = make_trainer(labels, prior_bias=True)
    bias = trainer.classifier.backbone.fc.bias  # type: ignore[union-attr]
    torch.testing.assert_close(bias.sigmoid(), labels.mean(dim=0), atol=0.01, rtol=0)  # type: ignore[operator]


def test_the_loss_is_the_configured_one(planted: TrainAndVal) -> None:
    variant = Loss(max_pos_weight=3, focal_gamma=2, label_smoothing=0.1)
    labels = planted[0].labels
    trainer = make_trainer(labels, loss=variant.model_dump())
    images = next(planted[0].images.batches([np.arange(16)]))
    with torch.no_grad():
        logits = trainer.classifier.train()(images)
    expected = multi_label_loss(logits, labels[:16], variant, pos_weights(labels, 3))
    torch.testing.assert_close(make_trainer(labels, loss=variant.model_dump()).step(images, labels[:16]), expected)


def test_stages_are_unfrozen_on_schedule(planted: TrainAndVal) -> None:
    trainer = make_trainer(unfreeze_epochs=1, epochs=10)
    moved = []
    for _ in range(4):
        before = {name: tensor.clone() for name, tensor in trainer.classifier.backbone.state_dict().items()}
        trainer.run_epoch(1, *planted)
        after = trainer.classifier.backbone.state_dict()
        names = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(after[name], tensor)}
        moved.append(names)
    assert moved == [{"fc"}, {"fc", "layer4"}, {"fc", "layer4", "layer3"}, {"fc", "layer4", "layer3", "layer2"}]


def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch.compile append the mode of the network to the returned list instead of generating code."""
    compilations: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        compilations.append("train" if torch.is_grad_enabled() else "eval")
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return compilations


@pytest.mark.slow
def test_each_member_is_compiled_once_for_each_set_of_trainable_parameters(
    planted: TrainAndVal, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = make_trainer(unfreeze_epochs=1)
    compilations = count_compilations(monkeypatch)
    with torch.compiler.config.patch(recompile_limit=1):  # type: ignore[attr-defined]
        for unfreeze_epochs, expected in ((0, 1), (2, 1), (1, 2)):
            compilations.clear()
            trainer = make_trainer(compile=True, unfreeze_epochs=unfreeze_epochs)
            for _ in range(2):
                trainer.run_epoch(1, *planted)
            assert compilations == ["train"] * expected
    for _ in range(2):
        eager.run_epoch(1, *planted)
    assert trainer.curve == eager.curve


def test_training_ends_at_the_limit_of_compilations(planted: TrainAndVal, monkeypatch: pytest.MonkeyPatch) -> None:
    count_compilations(monkeypatch)
    trainer = make_trainer(compile=True)
    with torch.compiler.config.patch(recompile_limit=1):  # type: ignore[attr-defined]
        trainer.step(torch.rand(4, 1, 32, 32), torch.zeros(4, 15))
        with pytest.raises(InputError, match=r"limit of compilations.*set compile to false"), translate_torch_errors():
            trainer.step(torch.rand(5, 1, 32, 32), torch.zeros(5, 15))
