"""Reading PNG, JPEG and DICOM files into the networks' input, with the functions of the resize stage."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from cxr.core.errors import InputError
from cxr.images.decode import decode_gray_image
from cxr.images.resize import resize
from tools.predict.ood_checks import colour_warnings, shape_warnings

DICOM_SUFFIXES = (".dcm", ".dicom")
DISPLAY_SIDE = 512  # pixels; small enough to keep hundreds of images in memory
_NO_DISPLAY = np.empty((0, 0), np.uint8)
_JPEG = b"\xff\xd8"


class InputImage(NamedTuple):
    """A decoded image and its warnings."""

    file: Path
    pixels: NDArray[np.uint8]  # input of the networks, [image_size, image_size]
    warnings: tuple[str, ...]  # of `ood_checks` and of the DICOM header
    display: NDArray[np.uint8]  # for saliency maps: original aspect ratio, sides up to `DISPLAY_SIDE`; may be empty


class Failure(NamedTuple):
    """An image that could not be read."""

    file: Path
    reason: str


def read_image(path: Path, image_size: int, *, with_display: bool = False) -> InputImage | Failure:
    """Read the image at `path`; the other arguments and errors are those of `decode_image`."""
    try:
        file = path.read_bytes()
    except (OSError, MemoryError) as error:
        return Failure(path, str(error) or type(error).__name__)
    return decode_image(file, path, image_size, with_display=with_display)


def decode_image(file: bytes, path: Path, image_size: int, *, with_display: bool = False) -> InputImage | Failure:
    """Decode a PNG, JPEG or DICOM file for networks with an input of `image_size` pixels a side.

    Args:
        file: the content of the file.
        path: its path, of which only the name is used.
        image_size: pixels.
        with_display: whether to keep a larger copy for saliency maps.

    Raises:
        InputError: if it is a DICOM file and pydicom is not installed.
    """
    try:
        gray, warnings = _decode(file, path.suffix.lower() in DICOM_SUFFIXES)
    except (ValueError, OSError, MemoryError) as error:
        return Failure(path, str(error) or type(error).__name__)
    pixels = resize(gray, image_size)
    display = _thumbnail(gray) if with_display else _NO_DISPLAY
    return InputImage(path, pixels, (*warnings, *shape_warnings(gray, pixels)), display)


def _decode(file: bytes, is_dicom: bool) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the gray image, and the warnings that depend on the file format."""
    if is_dicom or file[128:132] == b"DICM":
        return _read_dicom(file)
    gray = decode_gray_image(file)
    return (_apply_orientation(gray, file) if file.startswith(_JPEG) else gray), colour_warnings(file)


def _apply_orientation(gray: NDArray[np.uint8], file: bytes) -> NDArray[np.uint8]:
    """Rotate or flip the image by the EXIF orientation of `file`, as image viewers do."""
    with Image.open(BytesIO(file)) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    oriented = Image.fromarray(gray)
    oriented.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(oriented))


def _read_dicom(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    try:
        from tools.predict.dicom import read_dicom  # noqa: PLC0415 (pydicom may be missing)
    except ImportError:
        raise InputError("DICOM files need pydicom: pip install -r requirements-predict.txt") from None
    return read_dicom(file)


def _thumbnail(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(gray)
    image.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)
