"""Access to the image files in `raw_dir`."""

from pathlib import Path
from typing import Self
from zipfile import BadZipFile, ZipFile

from cxr.core.errors import InputError
from cxr.core.files import open_file
from cxr.images.limits import MAX_BYTES


class RawImages:
    """The image files in `raw_dir`, found by name (NIH) or by path (CheXpert).

    Supported layouts of NIH are `images/*.png` (NIH's unpacked archives), `images_0NN/images/*.png` (Kaggle) and
    `images_0NN.zip`. A name with a slash is the path of a file in `raw_dir`. Reading is thread-safe. Archives stay open
    until the context manager exits.
    """

    def __init__(self, raw_dir: Path) -> None:
        """Find the image files.

        Raises:
            InputError: if the folder does not exist or has none of the layouts, or an archive cannot be read.
        """
        self._raw_dir = raw_dir
        self._archives: list[ZipFile] = []
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[ZipFile, str]] = {}
        if not raw_dir.is_dir():
            raise InputError(f"raw_dir: folder {raw_dir} not found; set raw_dir in params.yaml")
        for folder in (raw_dir / "images", *sorted(raw_dir.glob("images_*/images"))):
            self._files |= {path.name: path for path in folder.glob("*.png")}
        for path in sorted(raw_dir.glob("images_*.zip")):
            self._add_archive(path)
        if not self._files and not self._members and not (raw_dir / "train").is_dir():
            raise InputError(
                f"{raw_dir} has no images: neither images/*.png, images_0NN/images/*.png or images_0NN.zip (NIH) nor a "
                "folder train (CheXpert)"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._members or ("/" in name and (self._raw_dir / name).is_file())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._archives:
            archive.close()

    def read(self, name: str) -> bytes:
        """Return the content of the image file `name`.

        Raises:
            KeyError, FileNotFoundError: if there is no such file.
            InputError: if it is not a regular file, or larger than `MAX_BYTES`.
        """
        if name in self._files or "/" in name:
            with open_file(self._files.get(name, self._raw_dir / name), MAX_BYTES) as file:
                return file.read()
        archive, member = self._members[name]
        return archive.read(member)

    def _add_archive(self, path: Path) -> None:
        try:
            archive = ZipFile(path)
        except (BadZipFile, OSError) as error:
            raise InputError(f"{path} is not a readable zip archive: {error}") from None
        self._archives.append(archive)
        for member in archive.namelist():
            if member.endswith(".png"):
                self._members[member.rsplit("/", 1)[-1]] = (archive, member)
