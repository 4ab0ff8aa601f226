"""Fast decoding of 8-bit gray PNG files, the format of all but 519 of NIH's images.

ISA-L inflates the stream. Most of the remaining time is spent on undoing PNG's filters, where each pixel depends on the
one to its left; see `_undo_filters`. Format: https://www.w3.org/TR/png-3/
"""

import struct
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib
from numba import njit
from numpy.typing import NDArray

from cxr.images.limits import check_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">II5B")  # width, height, bit depth, color type, compression, filter, interlacing
_LANES = 32  # rows that are unfiltered together; 16 and 64 are slower


def decode_gray_png(file: bytes) -> NDArray[np.uint8] | None:
    """Decode an 8-bit gray PNG file to uint8 [height, width]; return None for any other kind of file.

    The checksum of every chunk is verified.

    Raises:
        ValueError: if the file is damaged, or exceeds the limits of `cxr.images.limits`.
    """
    if file[:8] != _SIGNATURE or file[12:16] != b"IHDR" or len(file) < 33:
        return None
    width, height, *kind = _HEADER.unpack_from(file, 16)
    if kind != [8, 0, 0, 0, 0]:
        return None
    check_size(width, height)
    size = height * (width + 1)
    try:
        filtered = isal_zlib.decompressobj().decompress(b"".join(_pixel_chunks(file)), size)
    except isal_zlib.IsalError as error:  # type: ignore[misc] # the stub does not declare a class
        raise ValueError(f"damaged: {error}") from None
    if len(filtered) < size:
        raise ValueError("truncated: fewer pixels than its header declares")
    lines = np.frombuffer(filtered, np.uint8).reshape(height, width + 1)
    if lines[:, 0].max() > 4:
        raise ValueError("damaged: unknown filter of a row")
    return _undo_filters(lines)


def _pixel_chunks(file: bytes) -> Iterator[memoryview]:
    """Yield the parts of the compressed pixels, verifying all chunks."""
    view, position, name = memoryview(file), 8, b""
    while name != b"IEND":
        if len(file) < position + 12:
            raise ValueError("truncated: the last chunk is missing")
        (length,) = struct.unpack_from(">I", file, position)
        name, end = file[position + 4 : position + 8], position + 8 + length
        if len(file) < end + 4:
            raise ValueError("truncated within a chunk")
        if isal_zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", file, end)[0]:
            raise ValueError(f"damaged: wrong checksum of the chunk {name.decode('latin-1')}")
        if name == b"IDAT":
            yield view[position + 8 : end]
        position = end + 4


@njit(nogil=True, cache=True)
def _undo_filters(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filter of each row of `lines`, uint8 [height, 1 + width], whose first column is the filter type.

    Since a pixel depends on its left neighbor, a single row is processed one pixel at a time. To use the vector units,
    32 rows are processed together, each one pixel behind the row above: a slanted column of 32 pixels at a time.
    """
    height, width = lines.shape[0], lines.shape[1] - 1
    pixels = np.empty((height, width), np.uint8)
    # Column x of row r of the block is stored at slanted[x + r, r]. The corners hold values that no pixel depends on.
    flat = np.zeros((width + _LANES - 1) * _LANES, np.uint8)
    slanted = flat.reshape((width + _LANES - 1, _LANES))
    above = np.zeros(width + _LANES - 1, np.int16)
    for top in range(0, height, _LANES):
        rows = min(_LANES, height - top)
        for row in range(rows):
            column, line = flat[row * (_LANES + 1) :][::_LANES], lines[top + row, 1:]
            for x in range(width):
                column[x] = line[x]
        _undo_slanted(slanted, lines[top : top + rows, 0], above)
        for row in range(rows):
            column, line = flat[row * (_LANES + 1) :][::_LANES], pixels[top + row]
            for x in range(width):
                line[x] = column[x]
        above[:width] = pixels[top + rows - 1]
    return pixels


@njit(nogil=True, cache=True)
def _undo_slanted(slanted: NDArray[np.uint8], filters: NDArray[np.uint8], above: NDArray[np.int16]) -> None:
    """Replace filtered values by pixels in place, a slanted column at a time; `above` is the row above the block."""
    left, up, corner = np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16)
    # Masks instead of branches: every lane computes all filters and selects its own.
    is_sub, is_up = np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16)
    is_average, is_paeth = np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16)
    for lane in range(len(filters)):
        is_sub[lane], is_up[lane] = -(filters[lane] == 1), -(filters[lane] == 2)
        is_average[lane], is_paeth[lane] = -(filters[lane] == 3), -(filters[lane] == 4)
    for step in range(len(slanted)):
        values = slanted[step]
        for lane in range(_LANES - 1):
            up[_LANES - 1 - lane] = left[_LANES - 2 - lane]
        up[0] = above[step]
        for lane in range(_LANES):
            a, b, c = left[lane], up[lane], corner[lane]
            from_a, from_b = abs(np.int16(b - c)), abs(np.int16(a - c))
            from_c = abs(np.int16(a + b - c - c))
            nearer = np.int16(b if from_b <= from_c else c)
            paeth = np.int16(a if from_a <= min(from_b, from_c) else nearer)
            average = np.int16(np.int16(a + b) >> 1)
            predicted = (a & is_sub[lane]) | (b & is_up[lane]) | (average & is_average[lane]) | (paeth & is_paeth[lane])
            pixel = np.int16((np.int16(values[lane]) + predicted) & 255)
            left[lane], corner[lane], values[lane] = pixel, b, pixel
