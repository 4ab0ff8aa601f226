import io
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.images.png import decode_gray_png


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(width: int, height: int, filtered: bytes, color_type: int = 0, parts: int = 1) -> bytes:
    """Return a PNG file of rows that are already filtered, with its stream split into `parts` chunks."""
    stream = zlib.compress(filtered)
    cuts = np.linspace(0, len(stream), parts + 1).astype(int)
    pixels = b"".join(chunk(b"IDAT", stream[a:b]) for a, b in pairwise(cuts))
    header = chunk(b"IHDR", struct.pack(">II5B", width, height, 8, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def undo_pixel_by_pixel(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filters of PNG as its specification describes them."""
    height, width = lines.shape[0], lines.shape[1] - 1
    filtered, pixels = lines.tolist(), np.zeros((height + 1, width + 1), int)
    for y in range(height):
        for x in range(width):
            a, b, c = pixels[y + 1, x], pixels[y, x + 1], pixels[y, x]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            predicted = [0, a, b, (a + b) // 2, paeth][filtered[y][0]]
            pixels[y + 1, x + 1] = (filtered[y][x + 1] + predicted) % 256
    return pixels[1:, 1:].astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_any_filters_are_undone_as_the_specification_says(width: int, height: int, parts: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    lines = random.integers(0, 256, (height, width + 1), np.uint8)
    lines[:, 0] = random.integers(0, 5, height)
    pixels = decode_gray_png(write_png(width, height, lines.tobytes(), parts=parts))
    assert pixels is not None
    assert np.array_equal(pixels, undo_pixel_by_pixel(lines))


@pytest.mark.parametrize("filter_number", range(5))
def test_each_filter_agrees_with_pillow(filter_number: int) -> None:
    lines = np.random.default_rng(filter_number).integers(0, 256, (100, 65), np.uint8)
    lines[:, 0] = filter_number
    file = write_png(64, 100, lines.tobytes())
    assert np.array_equal(np.asarray(decode_gray_png(file)), np.asarray(Image.open(io.BytesIO(file))))


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA", "P", "I;16"])
def test_other_kinds_of_png_are_not_decoded(mode: str) -> None:
    stream = io.BytesIO()
    gray = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image = Image.fromarray(np.asarray(gray).astype(np.uint16)) if mode == "I;16" else gray.convert(mode)
    image.save(stream, "PNG")
    assert decode_gray_png(stream.getvalue()) is None


@pytest.mark.parametrize("file", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(60)])
def test_files_that_are_not_png_are_not_decoded(file: bytes) -> None:
    assert decode_gray_png(file) is None


def test_too_few_pixels_and_unknown_filters_are_errors() -> None:
    with pytest.raises(ValueError, match="fewer pixels than its header declares"):
        decode_gray_png(write_png(4, 4, bytes(19)))
    with pytest.raises(ValueError, match="unknown filter"):
        decode_gray_png(write_png(4, 4, bytes(15) + b"\x05" + bytes(4)))


def test_inflating_stops_at_the_number_of_pixels() -> None:
    pixels = decode_gray_png(write_png(4, 4, bytes(1 << 26)))
    assert pixels is not None
    assert pixels.shape == (4, 4)


@pytest.mark.real_data
def test_the_real_originals_agree_with_pillow(shared: Path) -> None:
    decoded = 0
    for path in sorted((shared / "nih-originals/images").glob("*.png")):
        pixels = decode_gray_png(path.read_bytes())
        with Image.open(path) as image:
            assert (pixels is None) == (image.mode == "RGBA")
            if pixels is not None:
                decoded += 1
                assert np.array_equal(pixels, np.asarray(image))
    assert decoded == 71
