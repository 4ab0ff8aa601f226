"""Decoding PNG and JPEG files to 8-bit gray pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cxr.core.errors import InputError, first_lines
from cxr.images.limits import check_size
from cxr.images.png import decode_gray_png
from cxr.images.resize import resize

# Signatures of the supported formats. Pillow knows many more, and decoders of rare formats are less tested.
_FORMATS = ((b"\x89PNG\r\n\x1a\n", PngImageFile), (b"\xff\xd8\xff", JpegImageFile))


@contextmanager
def image_errors() -> Iterator[None]:
    """Raise any error of reading or decoding one image as a `ValueError` of one line, so that it does not end a run.

    Decoders raise exceptions of many classes for damaged files, so a list of classes is never complete.
    """
    try:
        yield
    except MemoryError:
        raise ValueError("too little memory to decode it") from None
    except (ValueError, OSError, InputError) as error:
        raise ValueError(first_lines(error)) from None
    except Exception as error:  # noqa: BLE001 (see above)
        raise ValueError(f"damaged: {first_lines(error)}") from None


def decode_and_resize(file: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file and resize it with antialiasing to uint8 [size, size].

    Raises:
        ValueError: if the file is not a valid PNG or JPEG image within the limits of `cxr.images.limits`.
    """
    return resize(decode_gray_image(file), size)


@image_errors()
def decode_gray_image(file: bytes) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG file to uint8 [height, width].

    Supports 8-bit gray, RGB, RGBA and palette images (519 of NIH's images are gray but stored as RGBA) and 16-bit gray.
    Of 16-bit images, the eight most significant bits in use are kept, since many use only 12 bits.

    Raises:
        ValueError: if the file is not a valid PNG or JPEG image within the limits of `cxr.images.limits`.
    """
    gray = decode_gray_png(file)
    return _decode_any(file) if gray is None else gray


def open_image(file: bytes) -> ImageFile:
    """Return a PNG or JPEG file as a Pillow image, whose pixels are not decoded yet.

    Raises:
        ValueError: if the file is of another format or exceeds the limits. Damaged files raise various exceptions.
    """
    if not file:
        raise ValueError("an empty file")
    for signature, plugin in _FORMATS:
        if file.startswith(signature):
            # Image.open would warn of some images beyond the limits before they are refused.
            image = plugin(BytesIO(file))
            check_size(*image.size)
            return image
    raise ValueError("not a PNG or JPEG image")


def _decode_any(file: bytes) -> NDArray[np.uint8]:
    with open_image(file) as image:
        # Reading the pixels does not verify the checksums. verify() does, in 8 % of the time of decoding.
        image.verify()
    with open_image(file) as image:
        return np.asarray(_gray(image))


def _gray(image: Image.Image) -> Image.Image:
    return Image.fromarray(_highest_eight_bits(image)) if image.mode.startswith("I") else image.convert("L")


def _highest_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int32).clip(0, 2**16 - 1)
    spare = max(int(values.max()).bit_length() - 8, 0)
    return (values >> spare).astype(np.uint8)
