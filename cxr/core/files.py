"""Atomic writing: an output is written under a temporary name and then moved into place."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for a file or folder; move it to `path` when the block ends.

    If the block raises, the temporary file is removed and `path` is unchanged. The temporary name is fixed, so the next
    run overwrites what a killed run left behind. `path` may be a hard link to a file in DVC's cache: moving replaces
    the link, whereas writing in place would change the cached bytes.
    """
    temporary = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove the file or folder at `path` if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write `table` without its index; floats are written with full precision."""
    with atomic_write(path) as temporary:
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
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
