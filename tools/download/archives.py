"""From NIH's tar.gz to a zip: one large file, of which any image can be read without the others."""

import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from cxr.core.errors import InputError
from cxr.core.files import atomic_write

_OLDEST = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_READABLE = 0o100644 << 16


def to_zip(tar: Path, archive: Path, advance: Callable[[int], object]) -> int:
    """Write the PNGs of the tar.gz file `tar` into `archive`, a zip, and return how many they are.

    They are stored as they are, a PNG being compressed already, in the order of `tar` and without dates: the same
    images give the same bytes. The zip is read back before it gets its name. `advance` is told the bytes of `tar` that
    were read.

    Raises:
        InputError: where `tar` is broken, has no PNGs, has one twice, a link for one, or one outside its folder.
    """
    with atomic_write(archive) as temporary:
        with tar.open("rb") as packed, ZipFile(temporary, "w", ZIP_STORED) as file:
            read = 0
            for name, content in _images(packed, tar):
                file.writestr(_entry(name), content)
                advance(packed.tell() - read)
                read = packed.tell()
            advance(packed.seek(0, os.SEEK_END) - read)
        with temporary.open("rb") as written, ZipFile(written) as file:
            if bad := file.testzip():
                raise InputError(f"{archive}: {bad} reads back other than it was written; check the disk")
            # Before it has its name, for which `tar` is deleted: a power cut could else take both.
            os.fsync(written.fileno())
            return len(file.namelist())


def refuse_outside(names: Iterable[str], archive: Path) -> None:
    """Raise InputError where a member of `archive` would lie outside the folder that it is unpacked in."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise InputError(f"{archive} has a member outside its folder, {name!r}: do not trust it, and remove it")


def _images(packed: BinaryIO, tar: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each PNG in `packed`, the content of `tar`."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=packed, mode="r|gz") as file:
            for member in file:
                refuse_outside([member.name], tar)
                if not member.name.endswith(".png"):
                    continue
                name = PurePosixPath(member.name).name
                content = file.extractfile(member) if member.isreg() else None
                if content is None or name in seen:
                    raise InputError(f"{tar}: {member.name} is there twice, or is no plain file; remove {tar.name}")
                seen.add(name)
                yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{tar} cannot be unpacked: {error}; remove it, and run again") from None
    if not seen:
        raise InputError(f"{tar} has no PNGs; remove it, and run again")


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, _OLDEST)
    entry.create_system = _UNIX
    entry.external_attr = _READABLE
    return entry
