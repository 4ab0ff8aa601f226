"""Antialiased bilinear resizing of gray images in integer arithmetic, so that the result is the same on any machine."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_WEIGHT_BITS = 14  # 8-bit pixels times 14-bit weights, and 16-bit intermediate values times 14-bit weights, fit 32 bits
_BETWEEN_BITS = 16  # of the intermediate values, after resizing the columns


class Weights(NamedTuple):
    """Weights of the source pixels in each target pixel, along one side."""

    first: NDArray[np.int64]  # [target]: index of the first source pixel of each target pixel
    weights: NDArray[np.int32]  # [target, taps]: of that pixel and the following ones, with the sum 2**14


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize uint8 [height, width] to uint8 [size, size].

    The filter is Pillow's BILINEAR: a triangle whose width is proportional to the scale and at least two pixels.
    The result differs from the exact value by at most half a gray level and a small rounding error.
    """
    rows, columns = (triangle_weights(length, size) for length in pixels.shape)
    return _resize(pixels, rows.first, rows.weights, columns.first, columns.weights)


@cache
def triangle_weights(source: int, target: int) -> Weights:
    """Return the weights for resizing one side from `source` to `target` pixels."""
    scale = source / target
    width = max(scale, 1.0)
    taps = min(int(np.ceil(width)) * 2 + 1, source)
    centers = (np.arange(target) + 0.5) * scale
    first = np.clip(np.floor(centers - width).astype(np.int64), 0, source - taps)
    positions = first[:, None] + np.arange(taps) + 0.5
    exact = np.maximum(1 - np.abs(positions - centers[:, None]) / width, 0)
    exact /= exact.sum(axis=1, keepdims=True)
    # Rounding the cumulative sums instead of the weights keeps the total at one, so white stays white.
    cumulative = np.round(exact.cumsum(axis=1) * 2**_WEIGHT_BITS).astype(np.int32)
    return Weights(first, np.diff(cumulative, axis=1, prepend=np.int32(0)))


@njit(nogil=True, cache=True)
def _resize(
    pixels: NDArray[np.uint8],
    first_row: NDArray[np.int64],
    row_weights: NDArray[np.int32],
    first_column: NDArray[np.int64],
    column_weights: NDArray[np.int32],
) -> NDArray[np.uint8]:
    # The pass over rows comes first: it reads memory in order, is vectorized, and leaves less for the other pass.
    size, width = len(first_row), pixels.shape[1]
    down = _WEIGHT_BITS + 8 - _BETWEEN_BITS
    row, resized = np.empty(width, np.int32), np.empty((size, size), np.uint8)
    for y in range(size):
        row[:] = 1 << (down - 1)
        for tap in range(row_weights.shape[1]):
            weight, line = row_weights[y, tap], pixels[first_row[y] + tap]
            for x in range(width):
                row[x] += weight * np.int32(line[x])
        row >>= down
        _resize_row(row, first_column, column_weights, resized[y])
    return resized


@njit(nogil=True, cache=True)
def _resize_row(
    row: NDArray[np.int32], first: NDArray[np.int64], weights: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    down = _WEIGHT_BITS + _BETWEEN_BITS - 8
    for x in range(len(out)):
        total, part, taps = np.int32(1 << (down - 1)), row[first[x] :], weights[x]
        for tap in range(len(taps)):
            total += taps[tap] * part[tap]
        out[x] = total >> down
