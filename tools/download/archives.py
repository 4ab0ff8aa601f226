"""Conversion of NIH's tar.gz archives to zip archives, from which a single image can be read without the others."""

import os
import tarfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from cxr.core.errors import InputError
from cxr.core.files import atomic_write, open_file
from cxr.images.limits import MAX_BYTES

_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # of the zip format
_UNIX = 3
_FILE_MODE = 0o100644 << 16
_BLOCK = 2**20  # bytes
# Limits of the unpacked size of a tar.gz. PNGs do not compress: NIH's archives grow by 1 %.
MAX_RATIO, MIN_LIMIT = 4, 100 * 10**6


def tar_to_zip(
    tar: Path, archive: Path, advance: Callable[[int], object], skipped: Container[str] = frozenset()
) -> int:
    """Write the PNGs of the tar.gz file `tar` to the zip `archive`, and return their number.

    PNGs are stored without further compression, in the order of `tar` and without dates, so the result is
    deterministic. The zip is read back before it is moved to its final name.

    Args:
        tar: the tar.gz file.
        archive: the zip to write.
        advance: called with the number of bytes of `tar` read since the last call.
        skipped: names of images that are not written.

    Raises:
        InputError: if `tar` is damaged or too large when unpacked, has no PNGs, a duplicate name, a PNG that is not a
            regular file, or a path outside its folder.
    """
    with atomic_write(archive) as temporary:
        _write_zip(tar, temporary, advance, skipped)
        with temporary.open("rb") as written, ZipFile(written) as file:
            if damaged := file.testzip():
                raise InputError(f"{archive}: {damaged} differs when read back; check the disk")
            # The caller deletes `tar` when the zip has its final name, so the content must be on the disk before that.
            os.fsync(written.fileno())
            return len(file.namelist())


def check_member_paths(names: Iterable[str], archive: Path) -> None:
    """Raise InputError if a member of `archive` would be unpacked outside the target folder, or is not printable."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if not name.isprintable():
            raise InputError(f"{archive} contains {name!a}, a name with control characters or not in UTF-8; remove it")
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise InputError(f"{archive} contains {name!r}, a path outside its folder; remove this untrusted archive")


class _LimitedGzip(GzipFile):
    """An open gzip file that cannot be unpacked to more than a multiple of its size."""

    def __init__(self, compressed: BinaryIO, tar: Path) -> None:
        super().__init__(fileobj=compressed, mode="rb")
        self._tar, self._limit = tar, MIN_LIMIT + MAX_RATIO * tar.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes; raise InputError at the limit."""
        content = super().read(size)
        if self.tell() > self._limit:
            raise InputError(f"{self._tar} unpacks to more than {self._limit / 1e9:.1f} GB; remove this archive")
        return content


class _Header(tarfile.TarInfo):
    """A header of a tar file; tarfile reads long names and attributes into memory, so their size is checked."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block of 512 bytes; raise TarError if it is damaged or its member too large."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # tarfile takes any of them for the end of the archive, which is zeros.
            if any(buf):
                raise tarfile.ReadError(str(error)) from None
            raise
        _check_size(header)
        return header


def _check_size(member: tarfile.TarInfo) -> None:
    if not 0 <= member.size <= MAX_BYTES:
        raise tarfile.ReadError(f"{member.name!a} has {member.size:,} bytes, more than the limit of {MAX_BYTES:,}")


def _write_zip(tar: Path, archive: Path, advance: Callable[[int], object], skipped: Container[str]) -> None:
    with open_file(tar) as compressed, ZipFile(archive, "w", ZIP_STORED) as file:
        read = 0
        for name, content in _images(compressed, tar):
            if PurePosixPath(name).name not in skipped:
                file.writestr(_zip_entry(name), content)
            advance(compressed.tell() - read)
            read = compressed.tell()
        advance(compressed.seek(0, os.SEEK_END) - read)


def _images(compressed: BinaryIO, tar: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each PNG in `compressed`, the open file `tar`."""
    seen: set[str] = set()
    try:
        for member, content in _members(_LimitedGzip(compressed, tar)):
            check_member_paths([member.name], tar)
            if not member.name.endswith(".png"):
                continue
            name = PurePosixPath(member.name).name
            if content is None or name in seen:
                raise InputError(f"{tar}: {member.name} is a duplicate or not a regular file; remove {tar.name}")
            seen.add(name)
            yield member.name, content.read()
    # tarfile raises ValueError for some damaged headers, and RecursionError for a chain of long names.
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"{tar} cannot be unpacked: {error}; remove it and run the command again") from None
    if not seen:
        raise InputError(f"{tar} has no PNGs; remove it and run the command again")


def _members(unpacked: _LimitedGzip) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield each member and its content, None if it is not a regular file.

    Raises:
        tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError: if the archive is damaged.
    """
    with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_Header, bufsize=_BLOCK) as file:
        for member in file:
            _check_size(member)  # again, since extended headers change the size
            yield member, file.extractfile(member) if member.isreg() else None
    while unpacked.read(_BLOCK):
        pass  # the checksum is verified at the end


def _zip_entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, _EARLIEST_DATE)
    entry.create_system = _UNIX
    entry.external_attr = _FILE_MODE
    return entry
