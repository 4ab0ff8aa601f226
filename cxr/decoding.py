"""From an image file to a gray square of pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr.png import decode_gray
from cxr.resizing import resize

LARGEST = 8192 * 8192  # pixels; below the number at which Pillow suspects an attack


def gray_square(file: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file and resize it, antialiased, to uint8 [size, size].

    Takes 8-bit gray, RGB, RGBA and palette images (NIH's 519 RGBA files hold a gray picture) and 16-bit gray, of which
    it keeps the high byte.

    Raises:
        ValueError: saying what is wrong with the file.
    """
    if not file:
        raise ValueError("an empty file")
    gray = decode_gray(file)
    return resize(_decode_any(file) if gray is None else gray, size)


def _decode_any(file: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are too many for a radiograph")
            # Reading pixels skips the checksums: a flipped bit would be another picture. Costs 8 % of a decode.
            image.verify()
        with Image.open(io.BytesIO(file)) as image:
            return np.asarray(_gray(image))
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None


def _gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L")
