import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.images import decode
from cxr.images.decode import decode_and_resize, decode_gray_image
from tests.fixtures.radiographs import png_of_size


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def slope(side: int = 48) -> NDArray[np.uint8]:
    """An image that compresses well: rows from 0 to 255 and a bright square."""
    pixels = np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))
    pixels[side // 4 : side // 2, side // 4 : side // 2] = 255
    return pixels


GRAY = slope()
PNG = png(Image.fromarray(GRAY))


def palette() -> Image.Image:
    image = Image.fromarray(255 - GRAY).convert("P")
    image.putpalette([level for index in range(256) for level in [255 - index] * 3])
    return image


def translucent() -> Image.Image:
    image = Image.fromarray(GRAY).convert("RGBA")
    image.putalpha(Image.fromarray(GRAY.T.copy()))
    return image


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda: Image.fromarray(GRAY), "L"),
        (lambda: Image.fromarray(GRAY).convert("RGBA"), "RGBA"),
        (translucent, "RGBA"),
        (lambda: Image.fromarray(GRAY).convert("RGB"), "RGB"),
        (lambda: Image.fromarray(GRAY).convert("LA"), "LA"),
        (palette, "P"),
        (lambda: Image.fromarray(GRAY.astype(np.uint16) * 256 + 255 - GRAY), "I;16"),
    ],
    ids=["gray", "rgba", "translucent", "rgb", "gray-alpha", "palette", "16-bit"],
)
def test_every_kind_of_png_gives_the_same_gray_image(make: Callable[[], Image.Image], mode: str) -> None:
    file = png(make())
    assert Image.open(io.BytesIO(file)).mode == mode
    pixels = decode_and_resize(file, len(GRAY))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - GRAY).max() <= (0 if mode == "I;16" else 1)


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_the_highest_bits_in_use_of_16_bit_images_are_kept(bits: int) -> None:
    values = GRAY.astype(np.uint16) << (bits - 8)
    assert np.array_equal(decode_and_resize(png(Image.fromarray(values)), len(GRAY)), GRAY)


def test_a_1_bit_png_is_black_and_white() -> None:
    file = png(Image.fromarray(GRAY > 99))
    assert Image.open(io.BytesIO(file)).mode == "1"
    assert np.array_equal(decode_and_resize(file, len(GRAY)), np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "an empty file"),
        (b"<html>not found</html>", "not a PNG or JPEG image"),
        (PNG[:20], "damaged|[Tt]runcated"),
        (PNG[:60], "[Tt]runcated"),
        (b"\xff\xd8\xff" + bytes(99), "damaged"),
        (PNG[: len(PNG) // 2], "[Tt]runcated|damaged"),
        (PNG.replace(b"IHDR", b"IHDX"), "."),
        (PNG[:29] + bytes(4) + PNG[33:], "."),
    ],
    ids=["empty", "html", "20 bytes", "60 bytes", "jpeg", "half", "chunk name", "header's CRC"],
)
def test_a_damaged_file_is_a_value_error(file: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_and_resize(file, 32)


def test_a_wrong_checksum_of_the_pixels_is_detected() -> None:
    start = PNG.index(b"IEND") - 8
    with pytest.raises(ValueError, match=r"."):
        decode_and_resize(PNG[:start] + bytes(4) + PNG[start + 4 :], 32)


@settings(deadline=None, max_examples=200)
@given(st.integers(PNG.index(b"IDAT") + 4, len(PNG) - 17), st.integers(0, 7))
def test_a_flipped_bit_never_changes_the_image(position: int, bit: int) -> None:
    file = bytearray(PNG)
    file[position] ^= 1 << bit
    try:
        pixels = decode_and_resize(bytes(file), len(GRAY))
    except ValueError:
        return
    assert np.array_equal(pixels, GRAY)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60), st.integers(0, len(PNG)), st.integers(0, 60))
def test_any_bytes_give_pixels_or_a_value_error(junk: bytes, position: int, cut: int) -> None:
    try:
        pixels = decode_and_resize(PNG[:position] + junk + PNG[position + cut :], 32)
    except ValueError:
        return
    assert pixels.shape == (32, 32)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "BMP", "ICO", "PCX", "JPEG2000", "EPS", "AVIF", "PPM"])
def test_other_formats_are_refused(form: str) -> None:
    file = encoded(Image.fromarray(GRAY), form)
    with pytest.raises(ValueError, match=r"^not a PNG or JPEG image$"):
        decode_and_resize(file, 32)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_gives_the_pixels_of_pillow(mode: str) -> None:
    file = encoded(Image.fromarray(GRAY).convert(mode), "JPEG", quality=95)
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(decode_gray_image(file), np.asarray(image.convert("L")))


@pytest.mark.parametrize("color_type", [0, 2, 6])
@pytest.mark.parametrize(
    ("width", "height"),
    # Image.open warns of the last one, which would be a second message.
    [(60_000, 60_000), (1, 67_000_000), (20_001, 1), (8192, 8193), (9500, 9500)],
)
def test_a_png_of_too_many_pixels_is_rejected(width: int, height: int, color_type: int) -> None:
    with pytest.raises(ValueError, match=f"^{width:,} x {height:,} pixels are too many for a radiograph"):
        decode_and_resize(png_of_size(width, height, color_type), 32)


def test_a_jpeg_of_too_many_pixels_is_rejected() -> None:
    file = bytearray(encoded(Image.fromarray(GRAY), "JPEG"))
    start = file.index(b"\xff\xc0") + 5  # PNG and JPEG store big-endian sizes; here: height, width
    file[start : start + 4] = struct.pack(">HH", 60_000, 50_000)
    with pytest.raises(ValueError, match=r"^50,000 x 60,000 pixels are too many for a radiograph"):
        decode_and_resize(bytes(file), 32)


@pytest.mark.parametrize(("height", "width"), [(20_000, 1), (1, 20_000), (8192, 8192)])
def test_an_image_at_the_limits_is_decoded(height: int, width: int) -> None:
    pixels = np.full((height, width), 77, np.uint8)
    assert np.array_equal(decode_and_resize(png(Image.fromarray(pixels)), 32), np.full((32, 32), 77))


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("a\nb"), KeyError("x"), ZeroDivisionError()])
def test_whatever_a_decoder_raises_is_a_value_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: bytes) -> None:
        raise error

    monkeypatch.setattr(decode, "decode_gray_png", fail)
    with pytest.raises(ValueError, match=r"^(damaged: .+|too little memory to decode it)$"):
        decode_and_resize(PNG, 32)


@pytest.mark.real_data
def test_the_real_rgba_files_hold_a_gray_radiograph(shared: Path) -> None:
    rgba = 0
    for path in sorted((shared / "nih-originals/images").glob("*.png")):
        with Image.open(path) as image:
            if image.mode != "RGBA":
                continue
            channels = np.asarray(image)
        rgba += 1
        assert channels.shape == (1024, 1024, 4)
        pixels = decode_and_resize(path.read_bytes(), 1024)
        assert np.abs(pixels.astype(int) - channels[..., 0]).max() <= 1
        assert 40 < pixels.mean() < 220
        assert pixels.std() > 20
    assert rgba == 20
