"""Output files whose path the user gives: checked before the work, and written without replacing devices or links."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from cxr.core.errors import InputError
from cxr.core.files import atomic_write, is_special


def check_output_file(option: str, path: Path, *, allow_special: bool = False) -> None:
    """Check that `path` can be written, without writing it.

    Args:
        option: the option that gives `path`, for the message.
        path: the output.
        allow_special: whether `path` may be a device or pipe.

    Raises:
        InputError: if `path` is a folder, or a device or pipe that is not allowed, or its folder is not writable.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: this is a folder; give a file")
    if is_special(path) and not allow_special:
        raise InputError(f"{option} {path}: this is a device or pipe; give a file")
    if not is_special(path):
        check_output_folder(option, path.parent)


def check_output_folder(option: str, folder: Path) -> None:
    """Check that files can be written to `folder`, which may be missing.

    Raises:
        InputError: if they cannot.
    """
    first = next(existing for existing in (folder, *folder.absolute().parents) if existing.exists())
    if not (first.is_dir() and os.access(first, os.W_OK | os.X_OK)):
        raise InputError(f"{option}: {first} is not a folder that can be written to; give another path")


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends, its file becomes the output `path`.

    A file is replaced, as `atomic_write` does; if `path` is a symbolic link, the target is replaced and the link stays.
    A device, pipe or the standard output receives the bytes.
    """
    if not (is_special(path) or is_standard_output(path)):
        with atomic_write(Path(os.path.realpath(path))) as temporary:
            yield temporary
        return
    with TemporaryDirectory() as folder:
        temporary = Path(folder) / "output"
        yield temporary
        with temporary.open("rb") as content, _open_stream(path) as stream:
            shutil.copyfileobj(content, stream)


def is_standard_output(path: Path) -> bool:
    """Return whether `path` is where this process prints, such as `/dev/stdout`."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(1))


def _open_stream(path: Path) -> BinaryIO:
    if is_standard_output(path):
        # A copy of the descriptor shares its position, so what is printed later follows even if it is a file.
        sys.stdout.flush()
        return os.fdopen(os.dup(1), "wb")
    return path.open("wb")
