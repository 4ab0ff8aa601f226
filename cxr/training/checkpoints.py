"""Checkpoints: one folder for each member, named by a fingerprint of everything that its weights depend on.

`checkpoints/` is not an output of DVC, so it remains when a run is killed. The folder of a member holds `last.pt`
during training, and `model.safetensors` and `curve.csv` when training is finished.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cxr.core.errors import InputError, warn
from cxr.core.files import atomic_write, remove
from cxr.models.distributed import RESUME_HINT
from cxr.models.members import Member

LAST = "last.pt"
MODEL = "model.safetensors"
CURVE = "curve.csv"


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
    """Return True if the member of this folder is fully trained; the model file is written last."""
    return (folder / MODEL).is_file()


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Replace the state of the previous epoch by `state`.

    Raises:
        InputError: if the file cannot be written.
    """
    with atomic_write(folder / LAST) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise InputError(f"cannot write {folder / LAST}; is the disk full? ({error})") from None
        file.flush()
        os.fsync(file.fileno())


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return the state after the last finished epoch, on the CPU; None if there is none or the file is damaged."""
    try:
        state: dict[str, Any] = torch.load(folder / LAST, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (torch.load raises many types for damaged files)
        warn(f"cannot read {folder / LAST}; training starts again from the first epoch: {error}")
        return None


def remove_unused(used: Collection[Path], root: Path) -> None:
    """Remove all checkpoint folders in `root` that are not in `used`."""
    for path in root.iterdir():
        if path.is_dir() and path not in used:
            remove(path)
