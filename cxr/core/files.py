"""Whole files or none: every output is written under a temporary name and moved into place."""

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
    """Yield a temporary path beside `path` to write a file or a folder at; move it to `path` at the end.

    Where the block raises, nothing is left and `path` keeps what it had. The temporary name is fixed, so what a
    killed run left behind is overwritten by the next one. DVC's cache may be a hard link to `path`: a move replaces
    the link, where writing in place would change the cached bytes.
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
    """Remove the file or folder at `path`, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write `table` without its index; floats keep every digit that tells them apart."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write `value` as indented JSON in the given order; NaN is not JSON and raises ValueError."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of the file at `path`."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
