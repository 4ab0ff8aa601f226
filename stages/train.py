"""Train the networks: one member of the ensemble for each of `models` x `seeds`.

Reads: `data/sample.csv`, `data/split.csv`, `data/images.npy`, and `weights_dir` where training starts from weights.
Writes: `data/models/MODEL-SEED.safetensors` (the weights of the epoch with the best mean AUROC on validation) and
    `data/curves.csv` (an epoch a row). Keeps `checkpoints/`, from which a stopped training goes on.
Alone: `python -m stages.train`, which starts one process for each of `devices`. Over several machines: on each of them
    `torchrun --nnodes N … -m stages.train` (README.md, Several GPUs).
"""

import os

# Before PyTorch loads: threads that wait must sleep. On a busy CPU, spinning makes a step up to 75 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import atomic_write, sha256, write_csv
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.core.paths import CHECKPOINTS, CURVES, IMAGES, MODELS, SAMPLE, SPLIT
from cxr.core.tables import label_matrix, read_sample_with_split
from cxr.evaluation.metrics import has_both_classes
from cxr.models.classifier import Architecture, build_classifier, check_model_name
from cxr.models.device import describe_device, init_device, library_versions, translate_torch_errors
from cxr.models.distributed import DistContext, init_distributed, is_launched, launch
from cxr.models.image_store import ImageStore, open_images
from cxr.models.members import Member, list_members
from cxr.models.model_file import save_model
from cxr.models.weights import weights_file
from cxr.training import checkpoints
from cxr.training.checkpoints import CURVE, LAST, MODEL
from cxr.training.params import TrainParams
from cxr.training.trainer import LabelledImages, Trainer, label_tensor


class Data(NamedTuple):
    """What every member is trained on."""

    train: LabelledImages
    val: LabelledImages
    image_size: int  # pixels
    patients: list[int]  # of train and val


def main() -> None:
    """Train what is not trained yet, then hand all members over."""
    params = read_params(TrainParams)
    check(params)
    members = list_members(params.models, params.seeds)
    device = init_device(params.threads, params.deterministic)
    if params.devices > 1 and not is_launched() and not is_trained(members, params, device):
        launch(params.devices, "stages.train")
        return
    with init_distributed(params.devices) as team, lock_of(team), translate_torch_errors():
        # Only the first process looks at checkpoints and writes anything: machines may have disks of their own.
        folders = {member: member_folder(member, params, device) for member in members if team.is_first}
        unfinished = team.from_first([member for member in folders if not checkpoints.is_finished(folders[member])])
        if unfinished:
            data = load_data(device)
        for member in unfinished:
            train_member(member, params, data, team, folders.get(member))
        if team.is_first:
            publish(folders)
            checkpoints.keep_only(list(folders.values()), CHECKPOINTS)


def is_trained(members: list[Member], params: TrainParams, device: torch.device) -> bool:
    """Whether all members are trained to their end, as by `torchrun`: then nothing needs several processes."""
    with checkpoints.training_lock(CHECKPOINTS):
        return all(checkpoints.is_finished(member_folder(member, params, device)) for member in members)


def lock_of(team: DistContext) -> AbstractContextManager[None]:
    """The lock of the checkpoints, for the process that writes them."""
    return checkpoints.training_lock(CHECKPOINTS) if team.is_first else nullcontext()


def check(params: TrainParams) -> None:
    """Raise InputError where a network or its weights are not to be had, before any work."""
    for model in params.models:
        check_model_name(model)
        weights_of(model, params)


def weights_of(model: str, params: TrainParams) -> Path | None:
    """The file that a network starts from, if it starts from one."""
    return weights_file(model, params.weights_dir) if params.weights == "imagenet" else None


def member_folder(member: Member, params: TrainParams, device: torch.device) -> Path:
    """The checkpoints of a member; another folder as soon as anything changes that its bits depend on."""
    weights = weights_of(member.model, params)
    depends_on = {
        "model": member.model,
        "seed": member.seed,
        "params": member_params(params),
        "weights": sha256(weights) if weights else None,
        "data": data_hashes(),
        "code": checkpoints.loaded_code(),
        "device": describe_device(device),
        "libraries": library_versions(),
    }
    return checkpoints.member_folder(CHECKPOINTS, member.model, member.seed, depends_on)


def member_params(params: TrainParams) -> dict[str, Any]:
    """The parameters of one member: not which others there are, nor where weights lie."""
    return params.model_dump(mode="json", exclude={"models", "seeds", "weights_dir"})


@cache
def data_hashes() -> dict[str, str]:
    """SHA-256 of each file of data that is trained on."""
    return {str(path): sha256(path) for path in (SAMPLE, SPLIT, IMAGES)}


def train_member(member: Member, params: TrainParams, data: Data, team: DistContext, folder: Path | None) -> None:
    """Train one network to its end, from its last finished epoch where there is one.

    `folder` keeps its checkpoints and, at the end, the network; None in all processes but the first.
    """
    architecture = Architecture(member.model, params.in_chans, data.image_size, params.attention_pool)
    torch.manual_seed(member.seed)
    classifier = build_classifier(
        architecture, weights_of(member.model, params), params.drop_rate, params.drop_path_rate
    )
    training = Trainer(classifier, params, data.train.labels, team)
    if state := team.from_first(checkpoints.load_last(folder) if folder else None):
        training.restore(state)
    if folder:
        announce(member, data, team, len(training.curve) + 1)
    started, before = monotonic(), len(training.curve)
    while not training.is_finished:
        row = training.run_epoch(member.seed, data.train, data.val)
        if folder:
            checkpoints.save_last(training.state(), folder)
            done = len(training.curve)
            report(row, params.epochs, (params.epochs - done) * (monotonic() - started) / (done - before))
    if folder:
        about = {"seed": member.seed, "patients": data.patients, **untrained(data.train.labels)}
        finish(training, architecture, about, folder)


def untrained(labels: Tensor) -> dict[str, list[str]]:
    """The classes that no training image has a label of, so that what a network says of them means nothing."""
    names = [name for name, is_unknown in zip(CLASSES, labels.isnan().all(dim=0).tolist(), strict=True) if is_unknown]
    return {"untrained": names} if names else {}


def announce(member: Member, data: Data, team: DistContext, start: int) -> None:
    """Say what is trained, where, and from which epoch on."""
    labels = data.train.labels
    where = f"{team.count} x {describe_device(labels.device)}" if team.count > 1 else describe_device(labels.device)
    print(f"{member.model}, seed {member.seed}: {len(labels):,} images on {where}, epoch {start} on", flush=True)


def report(row: dict[str, float], epochs: int, left: float) -> None:
    """Say what an epoch came to, and how many seconds are left if the others take as long."""
    print(
        f"epoch {row['epoch']:>3} of {epochs}  train loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val AUROC {row['val_auroc']:.4f}  lr {row['lr']:.2e}  "
        f"{tqdm.format_interval(left)} left",
        flush=True,
    )


def load_data(device: torch.device) -> Data:
    """Read the images that train and val are made of.

    Raises:
        InputError: where a file is missing or they do not fit together, or validation cannot choose an epoch.
    """
    table = read_sample_with_split(SAMPLE, SPLIT)
    images, labels = open_images(IMAGES, len(table)), label_matrix(table)
    rows = {name: np.flatnonzero(table["split"] == name) for name in ("train", "val")}
    if not has_both_classes(labels[rows["val"]]).any():
        raise InputError("no class has both positives and negatives in val, so no epoch can be chosen there")
    train, val = (
        LabelledImages(ImageStore(images, row, device), label_tensor(labels[row], device)) for row in rows.values()
    )
    patients = table.loc[table["split"] != "test", "patient"]
    return Data(train, val, images.shape[1], sorted(set(patients.tolist())))


def finish(training: Trainer, architecture: Architecture, about: dict[str, Any], folder: Path) -> None:
    """Write the curve and the best epoch's network; the network last, since it says that all is done.

    `about` goes into its description: also the patients that it has seen, whom no test may meet.
    """
    write_csv(pd.DataFrame(training.curve), folder / CURVE)
    training.result.load_state_dict(training.best_weights)
    description = {
        **about,
        "params": member_params(training.params),
        "best_epoch": training.best_epoch,
        "val_auroc": training.best_auroc,
    }
    with atomic_write(folder / MODEL) as temporary:
        save_model(training.result, architecture, description, temporary)
    (folder / LAST).unlink(missing_ok=True)


def publish(folders: dict[Member, Path]) -> None:
    """Copy the finished members to where DVC and evaluate expect them."""
    with atomic_write(MODELS) as models:
        models.mkdir()
        for member, folder in folders.items():
            shutil.copyfile(folder / MODEL, models / member.file.name)
    curves = []
    for member, folder in folders.items():
        # As text: numbers keep the digits that they were written with.
        curve = pd.read_csv(folder / CURVE, dtype=str)
        curve.insert(0, "member", str(member))
        curves.append(curve)
    write_csv(pd.concat(curves), CURVES)


if __name__ == "__main__":
    run_as_script(main)
