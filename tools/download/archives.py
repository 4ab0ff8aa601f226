"""Conversion of NIH's tar.gz archives to zip archives, from which a single image can be read without the others."""

import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from cxr.core.errors import InputError
from cxr.core.files import atomic_write

_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # of the zip format
_UNIX = 3
_FILE_MODE = 0o100644 << 16


def tar_to_zip(tar: Path, archive: Path, advance: Callable[[int], object]) -> int:
    """Write the PNGs of the tar.gz file `tar` to the zip `archive`, and return their number.

    PNGs are stored without further compression, in the order of `tar` and without dates, so the result is
    deterministic. The zip is read back before it is moved to its final name.

    Args:
        tar: the tar.gz file.
        archive: the zip to write.
        advance: called with the number of bytes of `tar` read since the last call.

    Raises:
        InputError: if `tar` is damaged, has no PNGs, a duplicate name, a PNG that is not a regular file, or a path
            outside its folder.
    """
    with atomic_write(archive) as temporary:
        _write_zip(tar, temporary, advance)
        with temporary.open("rb") as written, ZipFile(written) as file:
            if damaged := file.testzip():
                raise InputError(f"{archive}: {damaged} differs when read back; check the disk")
            # The caller deletes `tar` when the zip has its final name, so the content must be on the disk before that.
            os.fsync(written.fileno())
            return len(file.namelist())


def check_member_paths(names: Iterable[str], archive: Path) -> None:
    """Raise InputError if a member of `archive` would be unpacked outside the target folder."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise InputError(f"{archive} contains {name!r}, a path outside its folder; remove this untrusted archive")


def _write_zip(tar: Path, archive: Path, advance: Callable[[int], object]) -> None:
    with tar.open("rb") as compressed, ZipFile(archive, "w", ZIP_STORED) as file:
        read = 0
        for name, content in _images(compressed, tar):
            file.writestr(_zip_entry(name), content)
            advance(compressed.tell() - read)
            read = compressed.tell()
        advance(compressed.seek(0, os.SEEK_END) - read)


def _images(compressed: BinaryIO, tar: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each PNG in `compressed`, the open file `tar`."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=compressed, mode="r|gz") as file:
            for member in file:
                check_member_paths([member.name], tar)
                if not member.name.endswith(".png"):
                    continue
                name = PurePosixPath(member.name).name
                content = file.extractfile(member) if member.isreg() else None
                if content is None or name in seen:
                    raise InputError(f"{tar}: {member.name} is a duplicate or not a regular file; remove {tar.name}")
                seen.add(name)
                yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{tar} cannot be unpacked: {error}; remove it and run the command again") from None
    if not seen:
        raise InputError(f"{tar} has no PNGs; remove it and run the command again")


def _zip_entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, _EARLIEST_DATE)
    entry.create_system = _UNIX
    entry.external_attr = _FILE_MODE
    return entry
