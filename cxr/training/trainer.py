"""Training of one network: the state of a training and the work of one epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.evaluation.metrics import accuracy, auroc, nanmean
from cxr.models.classifier import Classifier
from cxr.models.distributed import SINGLE, DistContext
from cxr.models.prediction import predict_logits
from cxr.training.data import LabelledImages
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.losses import bce_loss, multi_label_loss, pos_weights, prior_logits
from cxr.training.lr_schedule import lr_multiplier
from cxr.training.parameter_groups import backbone_stages, num_trainable_stages, parameter_groups, unfreeze_last
from cxr.training.params import TrainParams


class Trainer:
    """Trains one network epoch by epoch and keeps the weights of the best epoch.

    Attributes:
        classifier: the network.
        ema: the exponential moving average of its weights, or None.
        train_model: the network that is trained: compiled if the parameters say so, otherwise `classifier` itself.
        ddp_model: `train_model` as wrapped for distributed training; `train_model` itself in a single process.
        curve: a row of metrics for each finished epoch.
        best_auroc: the highest mean AUROC on validation, -1 before the first epoch.
        best_epoch: the epoch of `best_auroc`, counted from 1.
        best_weights: the state dict of that epoch.
    """

    def __init__(self, classifier: Classifier, params: TrainParams, labels: Tensor, dist: DistContext = SINGLE) -> None:
        """Set up the state before the first epoch.

        Args:
            classifier: the network to train; it is moved to the device of `labels`.
            params: the parameters of the stage train.
            labels: labels of the training images, float [images, 15], nan if unknown.
            dist: the processes that train this network.
        """
        self.device = labels.device
        self.classifier = classifier.to(self.device)
        self.params = params
        self.dist = dist
        self.pos_weight = pos_weights(labels, params.loss.max_pos_weight)
        if params.prior_bias:
            self.classifier.init_head_bias(prior_logits(labels))
        self.ema = ModelEmaV3(self.classifier, params.ema_decay, use_warmup=True) if params.ema_decay else None
        # Validation calls `classifier`, which is not compiled: its batches have two other sizes.
        self.train_model = _compile(self.classifier) if params.compile else self.classifier
        self.ddp_model = dist.wrap_ddp(self.train_model)
        self.amp_dtype = _amp_dtype(params.amp_dtype, self.device)
        groups = parameter_groups(self.classifier, params)
        self.optimizer = torch.optim.AdamW(groups, params.lr, weight_decay=params.weight_decay, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype == torch.float16)
        self.steps, self.lr = 0, params.lr
        self.curve: list[dict[str, float]] = []
        self.best_auroc = -1.0
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @property
    def eval_model(self) -> Classifier:
        """The network that is validated and saved: the moving average if there is one."""
        return self.ema.module if self.ema else self.classifier

    @property
    def is_finished(self) -> bool:
        """True after the last epoch, or after `patience` epochs without an improvement."""
        patience, done = self.params.patience, len(self.curve)
        return done >= self.params.epochs or 0 < patience <= done - self.best_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the state after an epoch, for `load_state_dict`."""
        return {
            "model": self.classifier.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "curve": self.curve,
            "best_auroc": self.best_auroc,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; the following epochs give the same bits as without the interruption."""
        self.classifier.load_state_dict(state["model"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self.curve = state["curve"]
        self.best_auroc = state["best_auroc"]
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]

    def run_epoch(self, seed: int, train: LabelledImages, val: LabelledImages) -> dict[str, float]:
        """Train one epoch, validate, and keep the weights if they are the best; return the epoch's row of the curve.

        All random numbers depend on the seed, the epoch and the rank alone.

        Raises:
            InputError: if the loss is not finite; the message names the epoch and the step.
        """
        epoch = len(self.curve) + 1
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, self.dist.rank]).generate_state(1)[0]))
        plan = EpochPlan.create(len(train.labels), self.params.batch_size, self.params.mixup_alpha, seed, epoch)
        loss = self._train(plan, train, epoch)
        row = {"epoch": epoch, "lr": self.lr, "train_loss": loss, **self._validate(val, epoch)}
        self.curve.append(row)
        if row["val_auroc"] > self.best_auroc:
            self.best_auroc, self.best_epoch = row["val_auroc"], epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.eval_model.state_dict().items()}
        return row

    def step(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Take one step of the optimizer.

        Args:
            images: float [images, 1, height, width], from 0 to 1, on the device.
            labels: float [images, 15], on the device.
            weight: the fraction of the whole batch that is in this process's shard.

        Returns:
            The shard's contribution to the loss of the batch, float scalar on the device.
        """
        with self._autocast():
            logits = self.ddp_model(images)
        loss = weight * multi_label_loss(logits.float(), labels, self.params.loss, self.pos_weight)
        # DDP averages the gradients, but the loss of the batch is the sum over processes.
        self.scaler.scale(loss * self.dist.world_size).backward()
        if self.params.grad_clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.grad_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.ema:
            self.ema.update(self.classifier, self.steps)
        return loss.detach()

    def set_learning_rate(self, progress: float) -> None:
        """Set the learning rate of each parameter group to its value after `progress` epochs."""
        multiplier = lr_multiplier(progress, self.params)
        self.lr = self.params.lr * multiplier
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier

    def _train(self, plan: EpochPlan, train: LabelledImages, epoch: int) -> float:
        """Take the steps of an epoch; return the mean loss."""
        self._unfreeze(epoch)
        steps = plan.shard(self.dist).steps(train.images, train.labels, self.params.augment)
        # Losses stay on the device until the epoch ends: copying each to the host would make every step wait.
        losses = torch.zeros(len(plan.batches), device=self.device)
        # disable=None shows the bar only in a terminal.
        disable = None if self.dist.is_main_process else True
        bar = tqdm(steps, f"epoch {epoch}", len(plan.batches), disable=disable, leave=False, unit=" steps")
        for step, (images, labels) in enumerate(bar):
            # The middle of the step, since the rate is 0 at the start of warm-up and at the end of a single cosine.
            self.set_learning_rate(epoch - 1 + (step + 0.5) / len(plan.batches))
            losses[step] = self.step(images, labels, len(labels) / len(plan.batches[step]))
        self.dist.all_reduce(losses)
        self.dist.all_reduce_buffers(self.classifier)
        if self.ema:
            self.dist.all_reduce_buffers(self.ema.module)
        return _mean_loss(losses.cpu().numpy(), epoch)

    def _unfreeze(self, epoch: int) -> None:
        """Unfreeze the stages that are trained in `epoch`."""
        num_stages = len(backbone_stages(self.classifier))
        before, now = (num_trainable_stages(at, num_stages, self.params.unfreeze_epochs) for at in (epoch - 1, epoch))
        unfreeze_last(self.classifier, now)
        if self.params.compile and before != now:
            # Compiled code is for one set of trainable parameters. Without the earlier ones, a resumed training
            # compiles the same, and the limit of recompilations is not reached.
            torch.compiler.reset()
        # DDP fixes the set of trainable parameters and the order of its sums when it is created. Creating it for each
        # epoch lets the set change, and gives a resumed training the same order.
        self.ddp_model = self.dist.wrap_ddp(self.train_model)

    def _validate(self, val: LabelledImages, epoch: int) -> dict[str, float]:
        """Return the metrics of an epoch on validation."""
        with self._autocast():
            logits = predict_logits(self.eval_model, val.images, self.params.batch_size, self.dist).cpu()
        labels = val.labels.cpu()
        loss = float(bce_loss(logits, labels))
        if not np.isfinite(loss):
            raise InputError(
                f"the validation loss is {loss} after epoch {epoch}: lower lr, or set amp_dtype to float32"
            )
        targets = labels.nan_to_num(UNKNOWN).numpy().astype(np.uint8)
        accuracies = accuracy(targets, (logits > 0).numpy())
        return {
            "val_loss": loss,
            "val_auroc": nanmean(auroc(targets, logits.numpy())),
            "val_accuracy": nanmean(accuracies),
            **{f"val_accuracy.{name}": float(value) for name, value in zip(CLASSES, accuracies, strict=True)},
        }

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype != torch.float32):
            yield


def _compile(network: nn.Module) -> nn.Module:
    """Return the network compiled for one size of batches, without the compiled code of earlier networks.

    Where PyTorch would return to uncompiled code without a word, at the limit of recompilations, it raises.
    """
    torch.compiler.reset()
    torch.compiler.config.fail_on_recompile_limit_hit = True
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]


def _amp_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _mean_loss(losses: NDArray[np.float32], epoch: int) -> float:
    not_finite = np.flatnonzero(~np.isfinite(losses))
    if len(not_finite):
        raise InputError(
            f"the loss is {losses[not_finite[0]]} at epoch {epoch}, step {not_finite[0] + 1} of {len(losses)}: "
            "lower lr, or set amp_dtype to float32"
        )
    return float(losses.mean(dtype=np.float64))
