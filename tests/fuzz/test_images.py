"""Mutated PNG and JPEG files, and files of formats that are not supported, given to the decoder."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.images.decode import decode_and_resize, decode_gray_image
from tests.fuzz.harness import fuzz, outcome
from tests.fuzz.mutations import mutated, mutated_png
from tools.predict.reading import Failure, decode_image

pytestmark = pytest.mark.slow

SIZE = 32
GRAY = np.random.default_rng(0).integers(0, 256, (24, 40), np.uint8)
RGB = np.dstack([GRAY, GRAY.T.reshape(24, 40), 255 - GRAY])
EXIF = Image.Exif()
EXIF[0x0112] = 6  # orientation: rotated


def encoded(pixels: NDArray[np.generic], form: str, mode: str = "", **options: object) -> bytes:
    stream, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


PNGS = {
    "gray": encoded(GRAY, "PNG"),
    "rgba": encoded(RGB, "PNG", "RGBA"),
    "palette": encoded(GRAY, "PNG", "P"),
    "16-bit": encoded(GRAY.astype(np.uint16) * 99, "PNG"),
    "bilevel": encoded(GRAY, "PNG", "1"),
}
FILES = {
    **PNGS,
    "jpeg": encoded(GRAY, "JPEG"),
    "rotated": encoded(RGB, "JPEG", exif=EXIF),
    "progressive": encoded(RGB, "JPEG", progressive=True, icc_profile=b"profile"),
    "cmyk": encoded(RGB, "JPEG", "CMYK"),
}
OTHERS = {
    **{form: encoded(RGB, form) for form in ("GIF", "TIFF", "WEBP", "ICO", "PCX", "JPEG2000", "EPS", "AVIF")},
    "float": encoded(GRAY.astype(np.float32), "TIFF"),
}


def check(file: bytes) -> NDArray[np.uint8] | None:
    gray = outcome(decode_gray_image, file, errors=(ValueError,))
    if gray is not None:
        assert gray.dtype == np.uint8
        assert gray.ndim == 2
        assert gray.size > 0
        resized = outcome(decode_and_resize, file, SIZE, errors=(ValueError,))
        assert resized is not None
        assert resized.dtype == np.uint8
        assert resized.shape == (SIZE, SIZE)
    return gray


@fuzz(300)
@given(mutated_png(PNGS))
def test_a_png_with_valid_checksums(file: bytes) -> None:
    gray = check(file)
    expected = decoded_by_pillow(file)
    if gray is not None and expected is not None:
        np.testing.assert_array_equal(gray, expected)


def decoded_by_pillow(file: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of an 8-bit gray PNG file, by Pillow alone; None for others and damaged ones."""
    try:
        with Image.open(io.BytesIO(file)) as image:
            return np.asarray(image) if image.mode == "L" and image.width * image.height < 2**20 else None
    except Exception:  # noqa: BLE001 (whatever Pillow raises)
        return None


@fuzz(300)
@given(mutated(FILES))
def test_a_png_or_jpeg_file(file: bytes) -> None:
    check(file)


@fuzz(200)
@given(mutated(OTHERS))
def test_a_file_of_another_format(file: bytes) -> None:
    check(file)


@fuzz(300)
@given(mutated(FILES) | mutated_png(PNGS), st.sampled_from(["a.png", "a.jpg", "a.dcm", "a"]))
def test_an_image_for_prediction(file: bytes, name: str) -> None:
    image = outcome(lambda: decode_image(file, Path(name), SIZE, with_display=True))
    assert image is not None
    if isinstance(image, Failure):
        assert image.reason.strip()
    else:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape == (SIZE, SIZE)
        assert image.display.dtype == np.uint8
