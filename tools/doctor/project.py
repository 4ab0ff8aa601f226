"""Whether parameters, data and weights are there for `dvc repro`, judged by the very functions that the stages call."""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxr.core.errors import InputError
from cxr.core.params import PARAMS_FILE, read_params
from cxr.core.paths import CHECKPOINTS, IMAGES
from cxr.core.tables import is_synthetic, name_some
from cxr.datasets import chexpert
from cxr.datasets.boxes import BOX_FILE, read_boxes
from cxr.datasets.registry import read_lists, read_table
from cxr.images.raw_images import RawImages
from cxr.params import Params
from stages.sample import draw
from tools.doctor.remarks import INSTALL, Remark

DEMO = Path("data/demo")  # git has it


class Data(NamedTuple):
    """What is asked for, and what of it `sample` will draw."""

    params: Params
    table: pd.DataFrame  # as `read_table` returns it
    drawn: pd.DataFrame  # some of its rows


def remarks() -> Iterator[Remark]:
    """The running training, params.yaml, then what it asks for; one thing that is wrong does not hide the next."""
    yield training()
    try:
        params = read_params(Params)
    except InputError as error:
        yield Remark("problem", str(PARAMS_FILE), f"{error}\nmend it, and `make doctor` looks at weights and data too")
        return
    yield Remark("ok", str(PARAMS_FILE), "valid")
    yield weights(params)
    yield from data(params)
    yield from networks(params)


def data(params: Params) -> Iterator[Remark]:
    """The table, and what it names."""
    try:
        table = read_table(params.raw_dir, params.chexpert)
        found = Data(params, table, draw(table, params.sample, params.data_seed))
    except (InputError, OSError) as error:
        yield Remark("problem", "table", f"{error}\n{completing(params)}")
        return
    for about, look in LOOKS.items():
        try:
            yield look(found)
        except (InputError, OSError) as error:
            yield Remark("problem", about, str(error))


def networks(params: Params) -> Iterator[Remark]:
    """What `tools.doctor.networks` says, last of all: only here is PyTorch loaded, which takes seconds."""
    try:
        from tools.doctor import networks as asked  # noqa: PLC0415 (and it may be missing)
    except ImportError as error:
        yield Remark("problem", "models", f"they cannot be looked at: {error}; {INSTALL}")
        return
    yield from asked.remarks(params)


def training() -> Remark:
    """Whether a training is running here, which would not let another start."""
    process = holder()
    if process is None:
        return Remark("ok", "training", "none is running")
    said = f"process {process} is training here: wait for it, or `kill {process}`; then `dvc repro` goes on"
    return Remark("problem", "training", said)


def holder() -> str | None:
    """The process that holds the lock of `training_lock`; read here, since that module loads PyTorch.

    None where nobody holds it.
    """
    try:
        with (CHECKPOINTS / ".lock").open(encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (CHECKPOINTS / ".lock").read_text(encoding="ascii")
    return None


def weights(params: Params) -> Remark:
    """The files that training starts from; DVC wants their folder even where it starts from none."""
    folder = params.weights_dir
    missing = [name for name in params.models if not (folder / f"{name}.safetensors").is_file()]
    if params.weights == "imagenet" and missing:
        fetch = f"`python -m tools.weights {' '.join(missing)} --to {folder}`"
        return Remark("problem", "weights", f"{folder} lacks those of {', '.join(missing)}: {fetch}")
    if not folder.is_dir():
        return Remark("problem", "weights", f"there is no folder {folder}, which DVC looks for: `mkdir -p {folder}`")
    if params.weights == "none":
        return Remark("ok", "weights", "none are asked for")
    return Remark("ok", "weights", f"{folder} has those of {', '.join(params.models)}")


def describe(data: Data) -> Remark:
    """What the table holds."""
    kind = "synthetic images" if is_synthetic(data.params.raw_dir) else "images"
    said = f"{len(data.table):,} {kind} in {data.params.raw_dir}, {len(data.drawn):,} of them drawn"
    return Remark("ok", "table", said)


def images(data: Data) -> Remark:
    """Whether every image of the table is there: `sample` fails where one is missing that it draws."""
    with RawImages(data.params.raw_dir) as there:
        missing = [name for name in data.table["image"] if name not in there]
    needed = sorted(set(missing) & set(data.drawn["image"]))
    if needed:
        said = f"{len(needed):,} of the {len(data.drawn):,} drawn are missing: {name_some(needed)}"
        return Remark("problem", "images", f"{said}\n{completing(data.params)}, or leave them out with sample.exclude")
    if missing:
        said = f"{len(missing):,} of the table's are missing, none of them drawn: {name_some(missing)}"
        return Remark("warning", "images", f"{said}\n{completing(data.params)}")
    return Remark("ok", "images", f"all {len(data.table):,} of the table are there")


def official_lists(data: Data) -> Remark:
    """The data set's own split, which only the official split needs."""
    lists = read_lists(data.params.raw_dir)
    unlisted = len(set(data.drawn["image"]) - set(lists["image"]))
    if unlisted and data.params.split.method == "official":
        said = f"{unlisted:,} of the drawn images are in neither train_val_list.txt nor test_list.txt"
        return Remark("problem", "own split", f"{said}\n{completing(data.params)}, or set split.method to patient")
    if lists.empty:
        return Remark("ok", "own split", "not there; only split.method official needs it")
    return Remark("ok", "own split", f"{len(lists):,} images")


def boxes(data: Data) -> Remark:
    """The boxes, without which nothing fails but no class map is scored."""
    found = read_boxes(data.params.raw_dir)
    if found.empty and chexpert.is_there(data.params.raw_dir):
        return Remark("ok", "boxes", "CheXpert has none: class maps are not scored")
    if found.empty:
        return Remark("warning", "boxes", f"no {BOX_FILE}: class maps are not scored\n{completing(data.params)}")
    return Remark("ok", "boxes", f"{len(found):,}")


def room(data: Data) -> Remark:
    """Whether the packed images fit on the disk, uint8 [drawn, image_size, image_size]."""
    size, free = len(data.drawn) * data.params.image_size**2, shutil.disk_usage(".").free
    said = f"{IMAGES} takes {size / 1e9:.2f} GB"
    if size > free:
        return Remark("warning", "room", f"{said}, and {free / 1e9:.2f} GB are free: make room, or lower image_size")
    return Remark("ok", "room", said)


def completing(params: Params) -> str:
    """What brings the files that `raw_dir` lacks."""
    if params.raw_dir == DEMO:
        return f"`git checkout -- {DEMO}` brings the demo's files back"
    if chexpert.is_there(params.raw_dir):
        return f"unpack CheXpert's archive into {params.raw_dir} again"
    return f"`python -m tools.download {params.raw_dir}` fetches what is missing"


LOOKS = {"table": describe, "images": images, "own split": official_lists, "boxes": boxes, "room": room}
