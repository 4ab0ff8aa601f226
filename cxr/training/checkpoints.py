"""Checkpoints: one folder for each member, named by a fingerprint of everything that its weights depend on.

`checkpoints/` is not an output of DVC, so it remains when a run is killed. The folder of a member holds `curve.csv`,
`last.pt` during training, and `model.safetensors` when training is finished. `published` marks a member that was
written to `data/models`: its folder can be removed without loss, whereas the others hold work that exists nowhere else.

The files of an epoch are written by a thread during the next epoch. An epoch is printed when its files are on the disk,
so a killed run resumes after the last epoch that it has printed.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cxr.core.errors import InputError, warn
from cxr.core.files import atomic_write, remove, write_csv
from cxr.models.distributed import RESUME_HINT
from cxr.models.members import Member
from cxr.models.model_file import load_model

LAST = "last.pt"
MODEL = "model.safetensors"
CURVE = "curve.csv"
PUBLISHED = "published"
# Folders of other experiments that hold unpublished work; the oldest of more than these are removed.
MAX_UNPUBLISHED = 8


@contextmanager
def training_lock(root: Path) -> Iterator[None]:
    """Lock the checkpoints in `root` against a second training.

    The operating system releases the lock when the process ends for any reason.

    Raises:
        InputError: if another process holds the lock, such as a training that still runs after `dvc` was killed.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read()
            raise InputError(
                f"another training is running here: process {pid}. Wait until it ends, or stop it with `kill {pid}`; "
                f"then {RESUME_HINT}"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def create_folder(root: Path, member: Member, depends_on: dict[str, Any]) -> Path:
    """Create the checkpoint folder of a member if it does not exist, with `depends_on.json` in it; return its path.

    Args:
        root: the folder of all checkpoints.
        member: the member.
        depends_on: everything that the weights depend on, as JSON values; different values give different folders.
    """
    text = json.dumps(depends_on, indent=2, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = root / f"{member}-{fingerprint}"
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "depends_on.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder


def is_finished(folder: Path) -> bool:
    """Return True if the member of this folder is fully trained: its model file, which is written last, is valid.

    A broken file causes a warning, and the member is trained again.
    """
    if not (folder / MODEL).exists():
        return False
    try:
        load_model(folder / MODEL)
    except InputError as error:
        warn(f"{error}; this network is trained again")
        return False
    if read_curve(folder) is None:
        warn(f"{folder / CURVE} is missing or broken; this network is trained again")
        return False
    return True


class BackgroundWriter:
    """Runs functions in a thread, one at a time. At the end of the `with` block, the last one has ended."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def start(self, function: Callable[..., None], *args: object) -> None:
        """Start `function(*args)` when the previous function has ended; raise the exception of that one, if any."""
        self.wait()
        self._last = self._pool.submit(function, *args)

    def wait(self) -> None:
        """Wait until the last function has ended; raise its exception, if any."""
        if self._last:
            self._last.result()


def copy_state(value: Any) -> Any:
    """Return a copy of a state that training does not change, with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: copy_state(item) for name, item in value.items()}
    return [copy_state(item) for item in value] if isinstance(value, list) else value


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Replace the state of the previous epoch by `state`.

    Raises:
        InputError: if the file cannot be written.
    """
    with atomic_write(folder / LAST, durable=True) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            raise InputError(f"cannot write {folder / LAST}; is the disk full? ({error})") from None


def save_curve(curve: list[dict[str, float]], folder: Path) -> None:
    """Replace the curve of a member, which has one row for each epoch, by `curve`; without any, remove the file.

    The state of a training contains its curve. To survive a kill between the two files, write the state first, and
    write the curve again when the training resumes.
    """
    if curve:
        write_csv(pd.DataFrame(curve), folder / CURVE, durable=True)
    else:
        remove(folder / CURVE)


def read_curve(folder: Path) -> pd.DataFrame | None:
    """Return the curve of a member, as strings, so that numbers keep their digits; None if it is missing or broken."""
    try:
        curve = pd.read_csv(folder / CURVE, dtype=str)
    except (FileNotFoundError, ValueError):  # the errors of pandas are ValueErrors
        return None
    epochs = list(curve["epoch"]) if "epoch" in curve else []
    return curve if epochs and epochs == [str(epoch + 1) for epoch in range(len(curve))] else None


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return the state after the last finished epoch, on the CPU; None if there is none or the file is damaged."""
    try:
        # Read first: an OSError of torch.load means a damaged file, and one of the disk does not.
        content = BytesIO((folder / LAST).read_bytes())
    except FileNotFoundError:
        return None
    try:
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        return state
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (torch.load raises many types for damaged files)
        warn(f"cannot read {folder / LAST}; training starts again from the first epoch: {error}")
        return None


def remove_unused(used: Collection[Path], root: Path) -> None:
    """Mark the folders in `used` as published, and remove the other ones in `root` that hold no unpublished work.

    Of those that hold any, such as an interrupted training of another experiment, the last `MAX_UNPUBLISHED` remain.
    """
    for folder in used:
        (folder / PUBLISHED).touch()
    others = sorted((path for path in root.iterdir() if path.is_dir() and path not in used), key=_modification_time)
    unpublished = [path for path in others if _is_unpublished(path)]
    dropped = unpublished[:-MAX_UNPUBLISHED]
    for path in dropped:
        print(f"removed {path}: it is the oldest of more than {MAX_UNPUBLISHED} interrupted trainings", flush=True)
    for path in set(others) - set(unpublished) | set(dropped):
        remove(path)


def _is_unpublished(folder: Path) -> bool:
    return not (folder / PUBLISHED).exists() and any((folder / name).exists() for name in (LAST, MODEL))


def _modification_time(folder: Path) -> tuple[int, str]:
    return folder.stat().st_mtime_ns, folder.name
