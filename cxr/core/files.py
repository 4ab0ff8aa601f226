"""Reading regular files, and atomic writing: under a temporary name, which is then moved into place."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.core.errors import InputError

MAX_TEXT_BYTES = 2**30  # of a table or list; NIH's and CheXpert's have less than 50 MB


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` for a file or folder; move it to `path` when the block ends.

    If the block raises, the temporary file is removed and `path` is unchanged. The temporary name is fixed, so the next
    run overwrites what a killed run left behind. At any time, `path` is as before, complete, or, only if it is a folder
    that is being replaced, missing. `path` may be a hard link to a file in DVC's cache: moving replaces
    the link, whereas writing in place would change the cached bytes.

    Raises:
        InputError: if `path` is a device or pipe, which moving would replace.
    """
    if is_special(path):
        raise InputError(f"{path} is a device or pipe, not a file; remove it or use another path")
    temporary, replaced = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(temporary)
    try:
        yield temporary
        if durable:
            _flush(temporary)
        remove(replaced)
        if path.is_dir():
            # A folder cannot be replaced in one step, and one that is removed in place could be left half removed.
            path.rename(replaced)
        temporary.replace(path)
        remove(replaced)
        if durable:
            _flush(path.parent)
    finally:
        remove(temporary)


def _flush(path: Path) -> None:
    """Wait until the file or folder at `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove the file or folder at `path` if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Return whether `path` is, or links to, a device, pipe or socket: something other than a file or folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


def write_csv(table: pd.DataFrame, path: Path, *, durable: bool = False) -> None:
    """Write `table` without its index; floats are written with full precision. For `durable` see `atomic_write`."""
    with atomic_write(path, durable=durable) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write `value` as indented JSON, keeping the order of its keys.

    Raises:
        ValueError: if a value is NaN or infinite, which JSON cannot represent.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 hash of the file at `path`, in hexadecimal."""
    with open_file(path) as file:
        return file_digest(file, "sha256").hexdigest()


def check_regular_file(path: Path, max_bytes: int | None = None) -> None:
    """Check that `path` is a regular file, or a link to one, without opening it.

    Opening a FIFO waits for a writer, and reading a device such as /dev/zero never ends.

    Args:
        path: the file.
        max_bytes: the largest size that is accepted; by default any.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is a folder, FIFO, device or socket, or larger than `max_bytes`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file, but a folder, pipe or device; replace it by the file itself")
    if max_bytes is not None and status.st_size > max_bytes:
        raise InputError(f"{path} has {status.st_size:,} bytes, more than the limit of {max_bytes:,}")


def open_file(path: Path, max_bytes: int | None = None) -> BufferedReader:
    """Open a file for reading bytes; arguments and errors are those of `check_regular_file`."""
    check_regular_file(path, max_bytes)
    return path.open("rb")


def read_utf8(path: Path) -> str:
    """Return the text of a file in UTF-8, without the byte-order mark that it may start with.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not a regular file, not UTF-8, or larger than `MAX_TEXT_BYTES`.
    """
    with open_file(path, MAX_TEXT_BYTES) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    # Text in UTF-16 without a byte-order mark is valid UTF-8 with NULs.
    if "\0" in text:
        raise InputError(f"{path} is not text in UTF-8; save it in this encoding, or copy or download it again")
    return text
