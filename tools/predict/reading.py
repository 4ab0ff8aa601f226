"""From a file of any kind to what the networks see, by the very functions of the stage resize."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from cxr.core.errors import InputError
from cxr.images.decode import decode_gray_image
from cxr.images.resize import resize
from tools.predict.flags import colour_flags, shape_flags

DICOM_SUFFIXES = (".dcm", ".dicom")
NOTHING = np.empty((0, 0), np.uint8)
_JPEG = b"\xff\xd8"
SHOWN_SIDE = 512  # pixels: a picture beneath a heat map is no larger, so that memory holds hundreds


class Picture(NamedTuple):
    """An image that was read."""

    file: Path
    square: NDArray[np.uint8]  # what the networks see, [image_size, image_size]
    flags: tuple[str, ...]  # what speaks against a frontal chest X-ray
    shown: NDArray[np.uint8]  # to lay heat maps over: in its own proportions, no side above `SHOWN_SIDE`; may be empty


class Failure(NamedTuple):
    """An image that could not be read."""

    file: Path
    reason: str


def read_picture(path: Path, image_size: int, *, is_shown: bool = False) -> Picture | Failure:
    """Read the image at `path`; all else is as `decode_picture` has it."""
    try:
        file = path.read_bytes()
    except (OSError, MemoryError) as error:
        return Failure(path, str(error) or type(error).__name__)
    return decode_picture(file, path, image_size, is_shown=is_shown)


def decode_picture(file: bytes, path: Path, image_size: int, *, is_shown: bool = False) -> Picture | Failure:
    """The image in `file`, PNG, JPEG or DICOM, for networks that see `image_size` pixels a side.

    Args:
        file: its bytes.
        path: where it came from, for its name alone.
        image_size: pixels.
        is_shown: whether a picture for heat maps is made too: of a large image that takes half as long as decoding it.

    Raises:
        InputError: where it is a DICOM file and pydicom is not installed.
    """
    try:
        gray, flags = _decode(file, path.suffix.lower() in DICOM_SUFFIXES)
    except (ValueError, OSError, MemoryError) as error:
        return Failure(path, str(error) or type(error).__name__)
    square = resize(gray, image_size)
    return Picture(path, square, (*flags, *shape_flags(gray, square)), _small(gray) if is_shown else NOTHING)


def _decode(file: bytes, is_dicom: bool) -> tuple[NDArray[np.uint8], list[str]]:
    """The gray picture, and what its own kind of file says against it."""
    if is_dicom or file[128:132] == b"DICM":
        return _read_dicom(file)
    gray = decode_gray_image(file)
    return (_upright(gray, file) if file.startswith(_JPEG) else gray), colour_flags(file)


def _upright(gray: NDArray[np.uint8], file: bytes) -> NDArray[np.uint8]:
    """The picture as viewers show it: a phone writes what its sensor saw, and in EXIF's Orientation how it was held."""
    with Image.open(BytesIO(file)) as image:
        turn = image.getexif().get(ExifTags.Base.Orientation)
    picture = Image.fromarray(gray)
    picture.getexif()[ExifTags.Base.Orientation] = turn
    return np.asarray(ImageOps.exif_transpose(picture))


def _read_dicom(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    try:
        from tools.predict.dicom import read_dicom  # noqa: PLC0415 (pydicom may be missing)
    except ImportError:
        raise InputError("DICOM files need pydicom: pip install -r requirements-predict.txt") from None
    return read_dicom(file)


def _small(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(gray)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)
