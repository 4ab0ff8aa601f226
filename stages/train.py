"""Train the networks: one member of the ensemble for each combination of `models` and `seeds`.

Reads: `data/sample.csv`, `data/split.csv`, `data/images.npy`, `data/images.json`, and pretrained weights in
    `weights_dir` if `weights` is imagenet.
Writes: `data/models/MODEL-SEED.safetensors` (the weights of the epoch with the best mean AUROC on validation) and
    `data/curves.csv` (one row per epoch, written after every epoch). An interrupted training resumes from
    `checkpoints/`.
Run: `python -m stages.train`, which starts one process for each of `devices`. To train on several machines, run
    `torchrun --nnodes N … -m stages.train` on each of them.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from cxr.core.errors import run_stage
from cxr.core.files import atomic_write, write_csv
from cxr.core.params import read_params
from cxr.core.paths import CHECKPOINTS, CURVES, MODELS
from cxr.models.classifier import Architecture, build_classifier, check_model_name
from cxr.models.device import describe_device, init_device, translate_torch_errors
from cxr.models.distributed import DistContext, init_distributed, is_launched, launch
from cxr.models.members import Member, list_members
from cxr.models.model_file import save_model
from cxr.models.weights import pretrained_weights_path
from cxr.training import checkpoints
from cxr.training.checkpoints import LAST, MODEL, BackgroundWriter, copy_state, training_lock
from cxr.training.data import TrainingData, load_training_data, untrained_classes
from cxr.training.fingerprint import common_dependencies, member_dependencies, member_params
from cxr.training.params import TrainParams
from cxr.training.trainer import Trainer


def main() -> None:
    """Train all members that are not finished, and write the outputs of all."""
    params = read_params(TrainParams)
    check_models(params)
    members = list_members(params.models, params.seeds)
    device = init_device(params.threads, params.deterministic)
    if params.devices > 1 and not is_launched() and not are_finished(members, params, device):
        launch(params.devices, "stages.train")
        return
    with init_distributed(params.devices) as dist, main_process_lock(dist), translate_torch_errors():
        # Only the main process uses checkpoints and writes files: other machines may have their own disks.
        folders = checkpoint_folders(members, params, device) if dist.is_main_process else {}
        unfinished = dist.broadcast([member for member in folders if not checkpoints.is_finished(folders[member])])
        if unfinished:
            data = load_training_data(device)
        for member in unfinished:
            train_member(member, params, data, dist, folders)
        if dist.is_main_process:
            write_outputs(folders)
            checkpoints.remove_unused(folders.values(), CHECKPOINTS)


def check_models(params: TrainParams) -> None:
    """Check that timm has every model and that its pretrained weights exist, before any work.

    Raises:
        InputError: if a model or its weights are missing.
    """
    for model in params.models:
        check_model_name(model)
        initial_weights(model, params)


def initial_weights(model: str, params: TrainParams) -> Path | None:
    """Return the path of the pretrained weights of a model; None if it starts from random weights."""
    return pretrained_weights_path(model, params.weights_dir) if params.weights == "imagenet" else None


def are_finished(members: list[Member], params: TrainParams, device: torch.device) -> bool:
    """Return True if all members are fully trained, so that no processes need to be launched."""
    with training_lock(CHECKPOINTS):
        return all(map(checkpoints.is_finished, checkpoint_folders(members, params, device).values()))


def main_process_lock(dist: DistContext) -> AbstractContextManager[None]:
    """Return the lock of the checkpoints in the main process, and a null context in the others."""
    return training_lock(CHECKPOINTS) if dist.is_main_process else nullcontext()


def checkpoint_folders(members: list[Member], params: TrainParams, device: torch.device) -> dict[Member, Path]:
    """Return the checkpoint folder of each member."""
    common = common_dependencies(params, device)
    own = {member: member_dependencies(member, initial_weights(member.model, params)) for member in members}
    return {member: checkpoints.create_folder(CHECKPOINTS, member, common | own[member]) for member in members}


def train_member(
    member: Member, params: TrainParams, data: TrainingData, dist: DistContext, folders: dict[Member, Path]
) -> None:
    """Train one member, from its last finished epoch if there is a checkpoint.

    Args:
        member: the member to train.
        params: the parameters of the stage.
        data: the images and labels of train and val.
        dist: the processes that train the member.
        folders: the checkpoint folder of each member; empty in all processes but the main one, which writes files.
    """
    folder = folders.get(member)
    architecture = Architecture(member.model, params.in_chans, data.image_size, params.attention_pool)
    torch.manual_seed(member.seed)
    classifier = build_classifier(
        architecture, initial_weights(member.model, params), params.drop_rate, params.drop_path_rate
    )
    trainer = Trainer(classifier, params, data.train.labels, dist)
    if state := dist.broadcast(checkpoints.load_last(folder) if folder else None):
        trainer.load_state_dict(state)
    if folder:
        print_start(member, data, dist, len(trainer.curve) + 1)
        checkpoints.save_curve(trainer.curve, folder)
        write_curves(folders)
    start, epochs_before = monotonic(), len(trainer.curve)
    with BackgroundWriter() as writer:
        while not trainer.is_finished:
            trainer.run_epoch(member.seed, data.train, data.val)
            if folder:
                seconds_per_epoch = (monotonic() - start) / (len(trainer.curve) - epochs_before)
                writer.start(write_epoch, copy_state(trainer.state_dict()), folder, folders, params, seconds_per_epoch)
        writer.wait()
    if folder:
        save_member(trainer, architecture, describe_training(member, trainer, data), folder)


def print_start(member: Member, data: TrainingData, dist: DistContext, epoch: int) -> None:
    """Print the member, the number of training images, the devices and the first epoch."""
    labels = data.train.labels
    device = describe_device(labels.device)
    devices = f"{dist.world_size} x {device}" if dist.world_size > 1 else device
    print(f"{member.model}, seed {member.seed}: {len(labels):,} images on {devices}, from epoch {epoch}", flush=True)


def write_epoch(
    state: dict[str, Any], folder: Path, folders: dict[Member, Path], params: TrainParams, seconds_per_epoch: float
) -> None:
    """Write the state after an epoch and the curves; then print the epoch."""
    checkpoints.save_last(state, folder)
    checkpoints.save_curve(state["curve"], folder)
    write_curves(folders)
    print_epoch(state["curve"][-1], params.epochs, (params.epochs - len(state["curve"])) * seconds_per_epoch)


def print_epoch(row: dict[str, float], epochs: int, seconds_left: float) -> None:
    """Print the metrics of an epoch and the estimated time to the last epoch."""
    # The next epoch may show its progress bar, which `tqdm.write` moves to the next line.
    tqdm.write(
        f"epoch {row['epoch']:>3} of {epochs}  train loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val AUROC {row['val_auroc']:.4f}  lr {row['lr']:.2e}  "
        f"{tqdm.format_interval(seconds_left)} left"
    )
    sys.stdout.flush()


def describe_training(member: Member, trainer: Trainer, data: TrainingData) -> dict[str, Any]:
    """Return the entries about the training in the description of a model file.

    They include the patients of train and val, so that no network is evaluated on them, those of val, so that nothing
    is chosen on training patients, and the classes without labels.
    """
    untrained = untrained_classes(data.train.labels)
    return {
        "seed": member.seed,
        "patients": data.patients,
        "val_patients": data.val_patients,
        **({"untrained": untrained} if untrained else {}),
        "params": member_params(trainer.params),
        "best_epoch": trainer.best_epoch,
        "val_auroc": trainer.best_auroc,
    }


def save_member(trainer: Trainer, architecture: Architecture, training: dict[str, Any], folder: Path) -> None:
    """Write the network of the best epoch, whose file marks the member as finished."""
    trainer.eval_model.load_state_dict(trainer.best_weights)
    with atomic_write(folder / MODEL, durable=True) as temporary:
        save_model(trainer.eval_model, architecture, training, temporary)
    (folder / LAST).unlink(missing_ok=True)


def write_outputs(folders: dict[Member, Path]) -> None:
    """Copy the networks of all members to `data/models`, and write `data/curves.csv`."""
    with atomic_write(MODELS) as models:
        models.mkdir()
        for member, folder in folders.items():
            shutil.copyfile(folder / MODEL, models / member.file.name)
    write_curves(folders)


def write_curves(folders: dict[Member, Path]) -> None:
    """Write `data/curves.csv`: the epochs of all members so far, in the order of the members; without any, nothing."""
    read = {member: checkpoints.read_curve(folder) for member, folder in folders.items()}
    curves = {str(member): curve for member, curve in read.items() if curve is not None}
    if curves:
        table = pd.concat(curves, names=["member", None]).reset_index("member")
        write_csv(table, CURVES)


if __name__ == "__main__":
    run_stage(main, __doc__)
