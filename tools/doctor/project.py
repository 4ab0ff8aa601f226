"""Checks of parameters, data and weights, with the functions that the stages call."""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxr.core.errors import InputError, format_names
from cxr.core.params import PARAMS_FILE, read_params
from cxr.core.paths import CHECKPOINTS, IMAGES
from cxr.core.tables import is_synthetic
from cxr.datasets import chexpert
from cxr.datasets.boxes import BOX_FILE, read_boxes
from cxr.datasets.registry import read_lists, read_table
from cxr.images.raw_images import RawImages
from cxr.params import Params
from stages.sample import sample_images
from tools.doctor.checks import INSTALL, Check

DEMO = Path("data/demo")  # in git


class DataSet(NamedTuple):
    """The table in `raw_dir`, and the rows of it that the stage sample selects."""

    params: Params
    table: pd.DataFrame
    sample: pd.DataFrame


def run_checks() -> Iterator[Check]:
    """Yield the results for a running training, params.yaml, weights, data, models and devices."""
    yield check_training()
    try:
        params = read_params(Params)
    except InputError as error:
        yield Check("problem", str(PARAMS_FILE), f"{error}\nfix this first; weights and data are checked afterwards")
        return
    yield Check("ok", str(PARAMS_FILE), "valid")
    yield check_weights(params)
    yield from check_data(params)
    yield from check_networks(params)


def check_data(params: Params) -> Iterator[Check]:
    """Yield the results for the table and the files that belong to it."""
    try:
        table = read_table(params.raw_dir, params.chexpert)
        data = DataSet(params, table, sample_images(table, params.sample, params.data_seed))
    except (InputError, OSError) as error:
        yield Check("problem", "table", f"{error}\n{repair_hint(params)}")
        return
    for subject, check in DATA_CHECKS.items():
        try:
            yield check(data)
        except (InputError, OSError) as error:
            yield Check("problem", subject, str(error))


def check_networks(params: Params) -> Iterator[Check]:
    """Yield the results of `tools.doctor.networks`; last, because it imports PyTorch, which takes seconds."""
    try:
        from tools.doctor import networks  # noqa: PLC0415 (takes seconds, and PyTorch may be missing)
    except ImportError as error:
        yield Check("problem", "models", f"models cannot be checked: {error}; {INSTALL}")
        return
    yield from networks.run_checks(params)


def check_training() -> Check:
    """Check that no training is running in this folder, which would prevent another one."""
    process = training_process()
    if process is None:
        return Check("ok", "training", "none is running")
    hint = f"wait until it ends, or stop it with `kill {process}`; then `dvc repro` continues it"
    return Check("problem", "training", f"process {process} is training here: {hint}")


def training_process() -> str | None:
    """Return the ID of the process that holds the lock of `cxr.training.checkpoints.training_lock`; None without one.

    Importing that module would import PyTorch.
    """
    try:
        with (CHECKPOINTS / ".lock").open(encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (CHECKPOINTS / ".lock").read_text(encoding="ascii")
    return None


def check_weights(params: Params) -> Check:
    """Check the pretrained weights; DVC needs their folder even if they are not used."""
    folder = params.weights_dir
    missing = [name for name in params.models if not (folder / f"{name}.safetensors").is_file()]
    if params.weights == "imagenet" and missing:
        command = f"`python -m tools.weights {' '.join(missing)} --to {folder}`"
        return Check("problem", "weights", f"{folder} has no weights of {', '.join(missing)}: {command}")
    if not folder.is_dir():
        return Check("problem", "weights", f"there is no folder {folder}, which DVC needs: `mkdir -p {folder}`")
    if params.weights == "none":
        return Check("ok", "weights", "not used")
    return Check("ok", "weights", f"{folder} has {', '.join(params.models)}")


def check_table(data: DataSet) -> Check:
    """Report the size of the table and of the sample."""
    kind = "synthetic images" if is_synthetic(data.params.raw_dir) else "images"
    message = f"{len(data.table):,} {kind} in {data.params.raw_dir}, {len(data.sample):,} of them in the sample"
    return Check("ok", "table", message)


def check_images(data: DataSet) -> Check:
    """Check that the image files of the table exist; a missing one is a problem only if it is in the sample."""
    with RawImages(data.params.raw_dir) as files:
        missing = [name for name in data.table["image"] if name not in files]
    needed = sorted(set(missing) & set(data.sample["image"]))
    if needed:
        message = (
            f"{len(needed):,} of the {len(data.sample):,} images of the sample are missing: {format_names(needed)}"
        )
        return Check("problem", "images", f"{message}\n{repair_hint(data.params)}, or add them to sample.exclude")
    if missing:
        message = f"{len(missing):,} images of the table are missing, none of the sample: {format_names(missing)}"
        return Check("warning", "images", f"{message}\n{repair_hint(data.params)}")
    return Check("ok", "images", f"all {len(data.table):,} images of the table exist")


def check_lists(data: DataSet) -> Check:
    """Check the lists of the official split, which split.method official needs."""
    lists = read_lists(data.params.raw_dir)
    unlisted = len(set(data.sample["image"]) - set(lists["image"]))
    if unlisted and data.params.split.method == "official":
        message = f"{unlisted:,} images of the sample are in neither train_val_list.txt nor test_list.txt"
        return Check("problem", "split lists", f"{message}\n{repair_hint(data.params)}, or set split.method to patient")
    if lists.empty:
        return Check("ok", "split lists", "none; only split.method official needs them")
    return Check("ok", "split lists", f"{len(lists):,} images")


def check_boxes(data: DataSet) -> Check:
    """Check the bounding boxes, without which saliency maps are not scored."""
    boxes = read_boxes(data.params.raw_dir)
    if boxes.empty and chexpert.has_layout(data.params.raw_dir):
        return Check("ok", "boxes", "CheXpert has none: saliency maps are not scored")
    if boxes.empty:
        hint = repair_hint(data.params)
        return Check("warning", "boxes", f"there is no {BOX_FILE}: saliency maps are not scored\n{hint}")
    return Check("ok", "boxes", f"{len(boxes):,}")


def check_space_for_images(data: DataSet) -> Check:
    """Check that data/images.npy, uint8 [sample, image_size, image_size], fits on the disk."""
    size, free = len(data.sample) * data.params.image_size**2, shutil.disk_usage(".").free
    message = f"{IMAGES} needs {size / 1e9:.2f} GB"
    if size > free:
        hint = f"only {free / 1e9:.2f} GB are free: free disk space, or lower image_size"
        return Check("warning", "disk space", f"{message}, and {hint}")
    return Check("ok", "disk space", message)


def repair_hint(params: Params) -> str:
    """Return instructions to restore missing files of `raw_dir`."""
    if params.raw_dir == DEMO:
        return f"`git checkout -- {DEMO}` restores the demo"
    if chexpert.has_layout(params.raw_dir):
        return f"unpack the archive of CheXpert into {params.raw_dir} again"
    return f"`python -m tools.download {params.raw_dir}` downloads missing files"


DATA_CHECKS = {
    "table": check_table,
    "images": check_images,
    "split lists": check_lists,
    "boxes": check_boxes,
    "disk space": check_space_for_images,
}
