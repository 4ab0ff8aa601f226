"""Training of one network: what one epoch does, and the state that it changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation.metrics import accuracy, auroc, label_mask, nanmean
from cxr.models.classifier import Classifier
from cxr.models.distributed import SINGLE, DistContext
from cxr.models.image_store import ImageStore
from cxr.models.prediction import predict_logits
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.losses import bce_loss, multi_label_loss, pos_weights, prior_logits
from cxr.training.lr_schedule import lr_multiplier
from cxr.training.parameter_groups import backbone_stages, num_trainable_stages, parameter_groups, unfreeze_last
from cxr.training.params import TrainParams


@dataclass(frozen=True)
class LabelledImages:
    """Images and their labels: pixels, and float [images, 15] on the device, nan where a label is unknown."""

    pixels: ImageStore
    labels: Tensor


def label_tensor(labels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Labels of 0, 1 and `UNKNOWN`, uint8 [images, 15], as float on `device`, with nan for unknown."""
    return torch.from_numpy(np.where(label_mask(labels), labels, np.float32(np.nan))).float().to(device)


class Trainer:
    """A network being trained, and all that an epoch changes."""

    def __init__(
        self, classifier: Classifier, params: TrainParams, labels: Tensor, processes: DistContext = SINGLE
    ) -> None:
        """Take `classifier` to the device of `labels`, those of the training images; nothing is computed yet."""
        self.device = labels.device
        self.classifier = classifier.to(self.device)
        self.params = params
        self.processes = processes
        self.positive_weight = pos_weights(labels, params.loss.max_pos_weight)
        if params.prior_bias:
            self.classifier.start_bias(prior_logits(labels))
        self.average = ModelEmaV3(self.classifier, params.ema_decay, use_warmup=True) if params.ema_decay else None
        if params.compile:
            # Batches come in two sizes: translating each is faster than one translation for any size.
            self.classifier.compile(dynamic=False)
        self.trained = processes.together(self.classifier)
        self.precision = _precision(params.amp_dtype, self.device)
        groups = parameter_groups(self.classifier, params)
        self.optimizer = torch.optim.AdamW(groups, params.lr, weight_decay=params.weight_decay, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.steps, self.lr = 0, params.lr
        self.curve: list[dict[str, float]] = []
        self.best_auroc = -1.0
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @property
    def result(self) -> Classifier:
        """The network that is validated and kept: the average of its weights where there is one."""
        return self.average.module if self.average else self.classifier

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or none has been better for `patience` epochs."""
        patience, done = self.params.patience, len(self.curve)
        return done >= self.params.epochs or 0 < patience <= done - self.best_epoch

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return {
            "weights": self.classifier.state_dict(),
            "average": self.average.module.state_dict() if self.average else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "curve": self.curve,
            "best_auroc": self.best_auroc,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self.classifier.load_state_dict(state["weights"])
        if self.average:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
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
        plan = EpochPlan.plan(len(train.labels), self.params.batch_size, self.params.mixup_alpha, seed, epoch)
        loss = self._train(plan, train, epoch)
        row = {"epoch": epoch, "lr": self.lr, "train_loss": loss, **self._validate(val, epoch)}
        self.curve.append(row)
        if row["val_auroc"] > self.best_auroc:
            self.best_auroc, self.best_epoch = row["val_auroc"], epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.result.state_dict().items()}
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
        loss = share * multi_label_loss(logits.float(), labels, self.params.loss, self.positive_weight)
        # The mean of all processes' gradients is to be that of the whole batch, hence their number.
        self.scaler.scale(loss * self.processes.count).backward()
        if self.params.grad_clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.grad_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.average:
            self.average.update(self.classifier, self.steps)
        return loss.detach()

    def set_learning_rate(self, progress: float) -> None:
        """Set each group of parameters to its learning rate after `progress` epochs."""
        share = lr_multiplier(progress, self.params)
        self.lr = self.params.lr * share
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * share

    def _train(self, plan: EpochPlan, train: LabelledImages, epoch: int) -> float:
        self._unfreeze(epoch)
        ours = plan.share(self.processes)
        steps = ours.steps(train.pixels, train.labels, self.params.augment)
        # Losses stay on the device until the epoch ends: reading one would make every step wait.
        losses = torch.zeros(len(plan.batches), device=self.device)
        hidden = None if self.processes.is_first else True
        bar = tqdm(steps, f"epoch {epoch}", len(plan.batches), disable=hidden, leave=False, unit=" steps")
        for step, (pixels, labels) in enumerate(bar):
            # The middle of the step: at its start a rising rate would be 0, at its end a falling one.
            self.set_learning_rate(epoch - 1 + (step + 0.5) / len(plan.batches))
            losses[step] = self.step(pixels, labels, len(labels) / len(plan.batches[step]))
        self.processes.add_up(losses)
        self.processes.average_buffers(self.classifier)
        if self.average:
            self.processes.average_buffers(self.average.module)
        return _mean_loss(losses.cpu().numpy(), plan, epoch)

    def _unfreeze(self, epoch: int) -> None:
        """Let the stages move whose turn has come."""
        count = len(backbone_stages(self.classifier))
        unfreeze_last(self.classifier, num_trainable_stages(epoch, count, self.params.unfreeze_epochs))
        # Anew for each epoch: the processes agree on which gradients they average, and in which order they add them,
        # so that a resumed training adds in the same order.
        self.trained = self.processes.together(self.classifier)

    def _validate(self, val: LabelledImages, epoch: int) -> dict[str, float]:
        with self._autocast():
            logits = predict_logits(self.result, val.pixels, self.params.batch_size, self.processes)
        loss = float(bce_loss(logits, val.labels))
        if not np.isfinite(loss):
            raise InputError(f"the validation loss is {loss} after epoch {epoch}: lower lr, or use float32")
        labels = val.labels.nan_to_num(UNKNOWN).cpu().numpy().astype(np.uint8)
        right = accuracy(labels, (logits > 0).cpu().numpy())
        return {
            "val_loss": loss,
            "val_auroc": nanmean(auroc(labels, logits.cpu().numpy())),
            "val_accuracy": nanmean(right),
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


def _mean_loss(losses: NDArray[np.float32], plan: EpochPlan, epoch: int) -> float:
    broken = np.flatnonzero(~np.isfinite(losses))
    if len(broken):
        raise InputError(
            f"the loss is {losses[broken[0]]} at epoch {epoch}, step {broken[0] + 1} of {len(losses)}: "
            "lower lr, or set amp_dtype to float32"
        )
    return float(np.average(losses, weights=[len(batch) for batch in plan.batches]))
