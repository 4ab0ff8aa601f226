"""Reading PNG, JPEG and DICOM files into the networks' input, with the functions of the resize stage."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from cxr.core.errors import InputError
from cxr.core.files import open_file
from cxr.images.decode import decode_gray_image, image_errors, open_image
from cxr.images.limits import MAX_BYTES
from cxr.images.resize import resize
from tools.predict.ood_checks import colour_warnings, shape_warnings

DICOM_SUFFIXES = (".dcm", ".dicom")
DISPLAY_SIDE = 512  # pixels; small enough to keep hundreds of images in memory
_NO_DISPLAY = np.empty((0, 0), np.uint8)
_JPEG = b"\xff\xd8"
# Returns the gray image of a file, uint8 [height, width], and the warnings that depend on the file format.
Decoder = Callable[[bytes], tuple[NDArray[np.uint8], list[str]]]


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
        with image_errors(), open_file(path, MAX_BYTES) as opened:
            file = opened.read()
    except ValueError as error:
        return Failure(path, str(error))
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
    if not file:
        return Failure(path, "an empty file")
    decode = _dicom_decoder() if is_dicom(file) or path.suffix.lower() in DICOM_SUFFIXES else _decode_png_or_jpeg
    try:
        with image_errors():
            gray, warnings = decode(file)
            pixels = resize(gray, image_size)
            display = _thumbnail(gray) if with_display else _NO_DISPLAY
            return InputImage(path, pixels, (*warnings, *shape_warnings(gray, pixels)), display)
    except ValueError as error:
        return Failure(path, str(error))


def is_dicom(file: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a DICOM file."""
    return file[128:132] == b"DICM"


def _dicom_decoder() -> Decoder:
    try:
        from tools.predict.dicom import read_dicom  # noqa: PLC0415 (pydicom may be missing)
    except ImportError:
        raise InputError("DICOM files need pydicom: pip install -r requirements-predict.txt") from None
    return read_dicom


def _decode_png_or_jpeg(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    gray = decode_gray_image(file)
    return (_apply_orientation(gray, file) if file.startswith(_JPEG) else gray), colour_warnings(file)


def _apply_orientation(gray: NDArray[np.uint8], file: bytes) -> NDArray[np.uint8]:
    """Rotate or flip the image by the EXIF orientation of `file`, as image viewers do."""
    with open_image(file) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    oriented = Image.fromarray(gray)
    oriented.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(oriented))


def _thumbnail(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(gray)
    image.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)
