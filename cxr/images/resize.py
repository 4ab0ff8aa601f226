"""Antialiased bilinear resizing of gray images, in whole numbers: the same bits on every machine."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_WEIGHT_BITS = 14  # 8 bits of pixel, 14 of weight, and again 14 of weight on 16 bits between: all fit into 32
_BETWEEN_BITS = 16


class Weights(NamedTuple):
    """What each target place takes from which source places, along one side."""

    first: NDArray[np.int64]  # the first source place of each target place: [target]
    shares: NDArray[np.int32]  # of that place and those that follow, adding up to 2**14: [target, taps]


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize uint8 [height, width] to uint8 [size, size].

    Each new pixel is the mean of those around its centre, weighted by a triangle as wide as the change of scale (at
    least two pixels), as Pillow's BILINEAR does it; within half a gray level, and a rounding, of the exact value.
    """
    rows, columns = (triangle_weights(length, size) for length in pixels.shape)
    return _resize(pixels, rows.first, rows.shares, columns.first, columns.shares)


@cache
def triangle_weights(source: int, target: int) -> Weights:
    """The weights along one side of `source` pixels that becomes `target` pixels."""
    scale = source / target
    width = max(scale, 1.0)
    taps = min(int(np.ceil(width)) * 2 + 1, source)
    centers = (np.arange(target) + 0.5) * scale
    first = np.clip(np.floor(centers - width).astype(np.int64), 0, source - taps)
    places = first[:, None] + np.arange(taps) + 0.5
    exact = np.maximum(1 - np.abs(places - centers[:, None]) / width, 0)
    exact /= exact.sum(axis=1, keepdims=True)
    # Rounding the running sums, not the shares, keeps their total at one: white stays white.
    running = np.round(exact.cumsum(axis=1) * 2**_WEIGHT_BITS).astype(np.int32)
    return Weights(first, np.diff(running, axis=1, prepend=np.int32(0)))


@njit(nogil=True, cache=True)
def _resize(
    pixels: NDArray[np.uint8],
    first_row: NDArray[np.int64],
    row_shares: NDArray[np.int32],
    first_column: NDArray[np.int64],
    column_shares: NDArray[np.int32],
) -> NDArray[np.uint8]:
    # Rows before columns: that pass reads memory in order, in vectors, and leaves a third of it to the other.
    size, width = len(first_row), pixels.shape[1]
    down = _WEIGHT_BITS + 8 - _BETWEEN_BITS
    row, resized = np.empty(width, np.int32), np.empty((size, size), np.uint8)
    for y in range(size):
        row[:] = 1 << (down - 1)
        for tap in range(row_shares.shape[1]):
            share, line = row_shares[y, tap], pixels[first_row[y] + tap]
            for x in range(width):
                row[x] += share * np.int32(line[x])
        row >>= down
        _resize_row(row, first_column, column_shares, resized[y])
    return resized


@njit(nogil=True, cache=True)
def _resize_row(
    row: NDArray[np.int32], first: NDArray[np.int64], shares: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    down = _WEIGHT_BITS + _BETWEEN_BITS - 8
    for x in range(len(out)):
        total, part, weights = np.int32(1 << (down - 1)), row[first[x] :], shares[x]
        for tap in range(len(weights)):
            total += weights[tap] * part[tap]
        out[x] = total >> down
