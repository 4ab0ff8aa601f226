"""Where a stopped training goes on: a folder for each member, named by a fingerprint of all that its bits depend on.

`checkpoints/` is no output of DVC's, so it outlives a killed run. A member's folder holds `last.pt` while it is
trained, and `model.safetensors` with `curve.csv` once it is finished.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cxr.core.errors import InputError, warn
from cxr.core.files import atomic_write, remove, sha256

_PROJECT = Path(__file__).resolve().parents[2]
LAST = "last.pt"
MODEL = "model.safetensors"
CURVE = "curve.csv"


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, so that two trainings never write to it at once.

    The system frees the lock when its process ends, however it ends.

    Raises:
        InputError: naming the process that holds it, as where a killed `dvc` left its training running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            process = lock.read()
            raise InputError(
                f"another training is running here: process {process}. Wait for it, or stop it with `kill {process}`; "
                "then run again, and training goes on from its last finished epoch"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def member_folder(folder: Path, model: str, seed: int, depends_on: dict[str, Any]) -> Path:
    """The folder of a member's checkpoints, made with a readable list of what its bits depend on."""
    text = json.dumps(depends_on, indent=2, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{model}-{seed}-{fingerprint}"
    path.mkdir(exist_ok=True)
    with atomic_write(path / "depends_on.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def loaded_code() -> dict[str, str]:
    """SHA-256 of each of this project's files that the running program has imported."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {Path(file).resolve() for file in files if file}
    folders = (_PROJECT / "cxr", _PROJECT / "stages")
    ours = {path for path in paths if any(path.is_relative_to(folder) for folder in folders)}
    return {str(path.relative_to(_PROJECT)): sha256(path) for path in sorted(ours)}


def is_finished(folder: Path) -> bool:
    """Whether the member of this folder is trained to its end: the model file is written last."""
    return (folder / MODEL).is_file()


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Keep the state after a finished epoch, in place of the one before."""
    with atomic_write(folder / LAST) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise InputError(f"{folder / LAST} cannot be written; is the disk full? ({error})") from None
        file.flush()
        os.fsync(file.fileno())


def load_last(folder: Path) -> dict[str, Any] | None:
    """The state after the last finished epoch, on the CPU; None where there is none, or the file is broken."""
    try:
        state: dict[str, Any] = torch.load(folder / LAST, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (torch.load raises whatever broken bytes lead it to)
        warn(f"{folder / LAST} cannot be read, so training starts afresh: {error}")
        return None


def keep_only(needed: list[Path], folder: Path) -> None:
    """Remove the checkpoints of members that are not among `needed`."""
    for path in folder.iterdir():
        if path.is_dir() and path not in needed:
            remove(path)
