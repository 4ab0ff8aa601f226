"""Access to the image files in `raw_dir`."""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from cxr.core.errors import InputError, first_lines
from cxr.core.files import check_regular_file, open_file
from cxr.images.limits import MAX_BYTES


class ZipMember(NamedTuple):
    """A file in a zip archive."""

    archive: ZipFile
    info: ZipInfo

    def __str__(self) -> str:
        return f"{self.archive.filename}: {self.info.filename}"


class RawImages:
    """The image files in `raw_dir`, found by name (NIH) or by path (CheXpert).

    Supported layouts of NIH are `images/*.png` (NIH's unpacked archives), `images_0NN/images/*.png` (Kaggle) and
    `images_0NN.zip`. A name with a slash is the path of a file in `raw_dir`. Reading is thread-safe. Archives stay open
    until the context manager exits.
    """

    def __init__(self, raw_dir: Path) -> None:
        """Find the image files.

        Raises:
            InputError: if the folder does not exist or has none of the layouts, an archive cannot be read, or an image
                is in two folders or archives.
        """
        self._raw_dir = raw_dir
        self._sources: dict[str, Path | ZipMember] = {}
        if not raw_dir.is_dir():
            raise InputError(f"raw_dir: folder {raw_dir} not found; set raw_dir in params.yaml")
        for folder in (raw_dir / "images", *sorted(raw_dir.glob("images_*/images"))):
            for path in sorted(folder.glob("*.png")):
                self._add(path.name, path)
        with ExitStack() as archives:
            for path in sorted(raw_dir.glob("images_*.zip")):
                self._add_archive(archives.enter_context(open_archive(path)))
            self._archives = archives.pop_all()
        if not self._sources and not (raw_dir / "train").is_dir():
            raise InputError(
                f"{raw_dir} has no images: neither images/*.png, images_0NN/images/*.png or images_0NN.zip (NIH) nor a "
                "folder train (CheXpert)"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._sources or ("/" in name and (self._raw_dir / name).is_file())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archives.close()

    def read(self, name: str) -> bytes:
        """Return the content of the image file `name`.

        Raises:
            KeyError, FileNotFoundError: if there is no such file.
            InputError: if it is not a regular file, or larger than `MAX_BYTES`.
        """
        source = self._raw_dir / name if "/" in name else self._sources[name]
        if isinstance(source, ZipMember):
            return _read_member(source)
        with open_file(source, MAX_BYTES) as file:
            return file.read()

    def _add(self, name: str, source: Path | ZipMember) -> None:
        # The two may differ, and which of them to use would depend on the layout.
        if name in self._sources:
            raise InputError(f"{name} is in two places: {self._sources[name]} and {source}; remove one of them")
        self._sources[name] = source

    def _add_archive(self, archive: ZipFile) -> None:
        for info in archive.infolist():
            if info.filename.endswith(".png"):
                self._add(info.filename.rsplit("/", 1)[-1], ZipMember(archive, info))


def open_archive(path: Path) -> ZipFile:
    """Open a zip archive for reading.

    Raises:
        InputError: if it is missing, damaged or not a regular file.
    """
    try:
        check_regular_file(path)
        return ZipFile(path)
    # zipfile raises the last two for some damaged directories.
    except (BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{path} is not a complete zip archive: {first_lines(error)}; download it again or move it away"
        ) from None


def _read_member(member: ZipMember) -> bytes:
    """Return the content of a member of an archive, which is refused unread if its size is above `MAX_BYTES`."""
    archive, info = member
    # One read with the other methods of compression can expand to gigabytes.
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise InputError(f"{member} is not stored or deflated, but compressed in another way; pack it again")
    if info.file_size > MAX_BYTES:
        raise InputError(f"{member} has {info.file_size:,} bytes, more than the limit of {MAX_BYTES:,}")
    with archive.open(info) as file:
        # With the size, a stream that is longer than declared is not expanded any further.
        return file.read(info.file_size)
