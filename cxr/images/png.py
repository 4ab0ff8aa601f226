"""Gray 8-bit PNG files, which all but 519 of NIH's images are, decoded faster than general libraries do.

Inflating the stream is left to isa-l. What takes most of the time after that is undoing the filters of PNG, where each
pixel depends on the one to its left: see `_undo_filters`. Format: https://www.w3.org/TR/png-3/
"""

import struct
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib
from numba import njit
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">II5B")  # width, height, bit depth, colour, compression, filter, interlacing
_LARGEST_SIDE = 8192  # pixels
_LANES = 32  # rows that are unfiltered at a time; 16 and 64 are slower


def decode_gray_png(file: bytes) -> NDArray[np.uint8] | None:
    """Decode a PNG file that holds 8-bit gray pixels, uint8 [height, width]; None where it is any other kind of file.

    Every chunk's checksum is compared: a flipped bit would be another picture.

    Raises:
        ValueError: saying what is broken.
    """
    if file[:8] != _SIGNATURE or file[12:16] != b"IHDR" or len(file) < 33:
        return None
    width, height, *kind = _HEADER.unpack_from(file, 16)
    if kind != [8, 0, 0, 0, 0] or not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        return None
    size = height * (width + 1)
    try:
        filtered = isal_zlib.decompressobj().decompress(b"".join(_pixel_chunks(file)), size)
    except isal_zlib.IsalError as error:  # type: ignore[misc] # a class, whatever its stub says
        raise ValueError(f"broken: {error}") from None
    if len(filtered) < size:
        raise ValueError("truncated: it has fewer pixels than it says")
    lines = np.frombuffer(filtered, np.uint8).reshape(height, width + 1)
    if lines[:, 0].max() > 4:
        raise ValueError("broken: a row has a filter that PNG does not know")
    return _undo_filters(lines)


def _pixel_chunks(file: bytes) -> Iterator[memoryview]:
    """The parts of the compressed pixels, all chunks checked."""
    view, place, name = memoryview(file), 8, b""
    while name != b"IEND":
        if len(file) < place + 12:
            raise ValueError("truncated: it ends before its last chunk")
        (length,) = struct.unpack_from(">I", file, place)
        name, end = file[place + 4 : place + 8], place + 8 + length
        if len(file) < end + 4:
            raise ValueError("truncated: it ends within a chunk")
        if isal_zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", file, end)[0]:
            raise ValueError(f"broken: wrong checksum of its chunk {name.decode('latin-1')}")
        if name == b"IDAT":
            yield view[place + 8 : end]
        place = end + 4


@njit(nogil=True, cache=True)
def _undo_filters(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the filter of each row; `lines`, uint8 [height, 1 + width], have the filter's number in front.

    A pixel needs its left neighbour, so a row by itself goes one pixel at a time. But 32 rows go together where each is
    one pixel behind the row above: the processor's vector units then take a slanted column of 32 pixels at once.
    """
    height, width = lines.shape[0], lines.shape[1] - 1
    pixels = np.empty((height, width), np.uint8)
    # Slanted: the pixel at column x of the block's row r lies at slanted[x + r, r]. The corners stay zero, or hold
    # what no pixel is made from.
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
    """Replace the filtered values by pixels, a slanted column at a time; `above` is the row above the block."""
    left, up, corner = np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16), np.zeros(_LANES, np.int16)
    # Masks instead of branches: every lane does all filters and keeps its own.
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
