"""The raw images: where they lie in `raw_dir`."""

from pathlib import Path
from typing import Self
from zipfile import BadZipFile, ZipFile

from cxr.errors import InputError


class RawImages:
    """The images in `raw_dir`, by name, in any of NIH's layouts.

    `images/*.png` (as NIH's archives unpack), `images_0NN/images/*.png` (Kaggle's folders) or `images_0NN.zip`. May be
    read from several threads at once. A context manager: it holds archives open.
    """

    def __init__(self, raw_dir: Path) -> None:
        """Find the images.

        Raises:
            InputError: where there is no folder, none of the layouts, or an archive that cannot be read.
        """
        self._archives: list[ZipFile] = []
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[ZipFile, str]] = {}
        if not raw_dir.is_dir():
            raise InputError(f"raw_dir: there is no folder {raw_dir}; set raw_dir in params.yaml")
        for folder in (raw_dir / "images", *sorted(raw_dir.glob("images_*/images"))):
            self._files |= {path.name: path for path in folder.glob("*.png")}
        for path in sorted(raw_dir.glob("images_*.zip")):
            self._add_archive(path)
        if not self._files and not self._members:
            raise InputError(f"{raw_dir} has no images/*.png, no images_0NN/images/*.png and no images_0NN.zip")

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._archives:
            archive.close()

    def read(self, name: str) -> bytes:
        """The bytes of the image file called `name`; KeyError where there is none."""
        if name in self._files:
            return self._files[name].read_bytes()
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
