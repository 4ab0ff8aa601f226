"""The raw images: where they lie in `raw_dir`, and how one becomes a gray square of pixels."""

import io
from pathlib import Path
from typing import Self
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr.errors import InputError

LARGEST = 8192 * 8192  # pixels; below the number at which Pillow suspects an attack


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


def gray_square(file: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file and resize it, antialiased, to uint8 [size, size].

    Takes 8-bit gray, RGB, RGBA and palette images (NIH's 519 RGBA files hold a gray picture) and 16-bit gray, of which
    it keeps the high byte.

    Raises:
        ValueError: saying what is wrong with the file.
    """
    if not file:
        raise ValueError("an empty file")
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are too many for a radiograph")
            # Reading pixels skips the checksums: a flipped bit would be another picture. Costs 8 % of a decode.
            image.verify()
        with Image.open(io.BytesIO(file)) as image:
            return np.asarray(_gray(image).resize((size, size), Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L")
