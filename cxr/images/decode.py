"""Decoding image files to 8-bit gray pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr.images.png import decode_gray_png
from cxr.images.resize import resize

MAX_PIXELS = 8192 * 8192  # of one image; below Pillow's limit for decompression bombs


def decode_and_resize(file: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file and resize it with antialiasing to uint8 [size, size].

    Raises:
        ValueError: if the file is not a valid image.
    """
    return resize(decode_gray_image(file), size)


def decode_gray_image(file: bytes) -> NDArray[np.uint8]:
    """Decode an image file to uint8 [height, width].

    Supports 8-bit gray, RGB, RGBA and palette images (519 of NIH's images are gray but stored as RGBA) and 16-bit gray.
    Of 16-bit images, the eight most significant bits in use are kept, since many use only 12 bits.

    Raises:
        ValueError: if the file is not a valid image.
    """
    if not file:
        raise ValueError("an empty file")
    gray = decode_gray_png(file)
    return _decode_any(file) if gray is None else gray


def _decode_any(file: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many for a radiograph")
            # Reading the pixels does not verify the checksums. verify() does, in 8 % of the time of decoding.
            image.verify()
        with Image.open(io.BytesIO(file)) as image:
            return np.asarray(_gray(image))
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _gray(image: Image.Image) -> Image.Image:
    return Image.fromarray(_highest_eight_bits(image)) if image.mode.startswith("I") else image.convert("L")


def _highest_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int32).clip(0, 2**16 - 1)
    spare = max(int(values.max()).bit_length() - 8, 0)
    return (values >> spare).astype(np.uint8)
