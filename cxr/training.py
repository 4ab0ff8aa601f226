"""Training of one network: what one epoch does, and the state that it changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from tqdm import tqdm

from cxr.batches import Epoch, Pixels
from cxr.errors import InputError
from cxr.findings import CLASSES
from cxr.measures import accuracy, auroc, defined_mean
from cxr.networks import Classifier
from cxr.params import TrainParams
from cxr.prediction import predict_logits
from cxr.processes import ALONE, Processes


@dataclass(frozen=True)
class LabelledImages:
    """Images and their labels: pixels, and float [images, 15] on the device."""

    pixels: Pixels
    labels: Tensor


class Training:
    """A network being trained, and all that an epoch changes."""

    def __init__(
        self, classifier: Classifier, params: TrainParams, device: torch.device, processes: Processes = ALONE
    ) -> None:
        """Take `classifier` to the device; nothing is computed yet."""
        self.classifier = classifier.to(device)
        self.params = params
        self.device = device
        self.processes = processes
        if params.compile:
            # Batches come in two sizes: translating each is faster than one translation for any size.
            self.classifier.compile(dynamic=False)
        self.trained = processes.together(self.classifier)
        self.precision = _precision(params.mixed_precision, device)
        self.optimizer = torch.optim.AdamW(
            classifier.parameters(), params.lr, weight_decay=params.weight_decay, fused=True
        )
        self.schedule = CosineAnnealingWarmRestarts(self.optimizer, params.restart_epochs, params.restart_factor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.curve: list[dict[str, float]] = []
        self.best_auroc = -1.0
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return {
            "weights": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "curve": self.curve,
            "best_auroc": self.best_auroc,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self.classifier.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.curve = state["curve"]
        self.best_auroc = state["best_auroc"]
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]

    def run_epoch(self, seed: int, train: LabelledImages, val: LabelledImages) -> dict[str, float]:
        """Train the next epoch, validate, keep the best weights; return the epoch's row of the curve.

        All that chance decides is a function of the seed and the epoch.

        Raises:
            InputError: where the loss is not finite, naming the epoch and the step.
        """
        epoch = len(self.curve) + 1
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, self.processes.rank]).generate_state(1)[0]))
        # The schedule's epochs count from 0; given a number, it computes the learning rate from that alone.
        self.schedule.step(epoch - 1)
        plan = Epoch.plan(len(train.labels), self.params.batch_size, self.params.mixup, seed, epoch)
        row = {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": self._train(plan, train, epoch),
            **self._validate(val, epoch),
        }
        self.curve.append(row)
        if row["val_auroc"] > self.best_auroc:
            self.best_auroc, self.best_epoch = row["val_auroc"], epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.classifier.state_dict().items()}
        return row

    def step(self, pixels: Tensor, labels: Tensor, share: float = 1.0) -> Tensor:
        """Take one step of the optimizer.

        Args:
            pixels: float [images, 1, height, width], 0 to 1, on the device.
            labels: float [images, 15], on the device.
            share: how much of the whole batch this process has.

        Returns:
            This process's part of the batch's loss, float scalar on the device: reading it would make the host wait.
        """
        with self._autocast():
            logits = self.trained(pixels)
        loss = share * functional.binary_cross_entropy_with_logits(logits.float(), labels)
        # The mean of all processes' gradients is to be that of the whole batch, hence their number.
        self.scaler.scale(loss * self.processes.count).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _train(self, plan: Epoch, train: LabelledImages, epoch: int) -> float:
        self.classifier.train()
        ours = plan.share(self.processes)
        steps = ours.steps(train.pixels, train.labels, self.params.augment)
        # Losses stay on the device until the epoch ends: reading one would make every step wait.
        losses = torch.zeros(len(plan.batches), device=self.device)
        hidden = None if self.processes.is_first else True
        bar = tqdm(steps, f"epoch {epoch}", len(plan.batches), disable=hidden, leave=False, unit=" steps")
        for step, (pixels, labels) in enumerate(bar):
            losses[step] = self.step(pixels, labels, len(labels) / len(plan.batches[step]))
        self.processes.add_up(losses)
        self.processes.average_buffers(self.classifier)
        return _mean_loss(losses.cpu().numpy(), plan, epoch)

    def _validate(self, val: LabelledImages, epoch: int) -> dict[str, float]:
        with self._autocast():
            logits = predict_logits(self.classifier, val.pixels, self.params.batch_size, self.processes)
        loss = float(functional.binary_cross_entropy_with_logits(logits, val.labels))
        if not np.isfinite(loss):
            raise InputError(f"the validation loss is {loss} after epoch {epoch}: lower lr, or use float32")
        labels = val.labels.cpu().numpy().astype(np.uint8)
        right = accuracy(labels, (logits > 0).cpu().numpy())
        return {
            "val_loss": loss,
            "val_auroc": defined_mean(auroc(labels, logits.cpu().numpy())),
            "val_accuracy": float(right.mean()),
            **{f"val_accuracy.{name}": float(value) for name, value in zip(CLASSES, right, strict=True)},
        }

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            yield


def _precision(asked: str, device: torch.device) -> torch.dtype:
    if asked == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[asked]


def _mean_loss(losses: NDArray[np.float32], plan: Epoch, epoch: int) -> float:
    broken = np.flatnonzero(~np.isfinite(losses))
    if len(broken):
        raise InputError(
            f"the loss is {losses[broken[0]]} at epoch {epoch}, step {broken[0] + 1} of {len(losses)}: "
            "lower lr, or set mixed_precision to float32"
        )
    return float(np.average(losses, weights=[len(batch) for batch in plan.batches]))
