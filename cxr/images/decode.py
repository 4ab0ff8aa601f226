"""From an image file to a gray square of pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr.images.png import decode_gray_png
from cxr.images.resize import resize

LARGEST = 8192 * 8192  # pixels; below the number at which Pillow suspects an attack


def decode_and_resize(file: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image file as `gray_picture` does and resize it, antialiased, to uint8 [size, size]."""
    return resize(decode_gray_image(file), size)


def decode_gray_image(file: bytes) -> NDArray[np.uint8]:
    """Decode an image file to uint8 [height, width].

    Takes 8-bit gray, RGB, RGBA and palette images (NIH's 519 RGBA files hold a gray picture) and 16-bit gray, of which
    it keeps the highest eight of the bits that the picture uses: many hold only 12.

    Raises:
        ValueError: saying what is wrong with the file.
    """
    if not file:
        raise ValueError("an empty file")
    gray = decode_gray_png(file)
    return _decode_any(file) if gray is None else gray


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
    return Image.fromarray(_highest_eight_bits(image)) if image.mode.startswith("I") else image.convert("L")


def _highest_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int32).clip(0, 2**16 - 1)
    spare = max(int(values.max()).bit_length() - 8, 0)
    return (values >> spare).astype(np.uint8)
