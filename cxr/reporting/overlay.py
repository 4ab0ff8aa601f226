"""Saliency maps as coloured overlays on radiographs."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.evaluation.localisation import PEAK_FRACTION

_COLOUR = (230, 97, 1)  # orange, which is distinguishable from gray with any colour vision
_OPACITY = 0.55  # at the maximum of a map


def overlay(gray: NDArray[np.uint8], saliency: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an image with a saliency map over it, uint8 [height, width, 3].

    The opacity of the colour is proportional to the map. A contour encloses the pixels at or above `PEAK_FRACTION` of
    the maximum, white inside and black outside, so that it is visible without colour and on any background. A map of
    zeros leaves the image unchanged.

    Args:
        gray: uint8 [height, width].
        saliency: float [side, side], 0 or more.
    """
    height, width = gray.shape
    base = np.asarray(gray, np.float64)[..., None]
    if not saliency.any():
        return np.repeat(gray[..., None], 3, axis=2)
    enlarged = Image.fromarray(saliency.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    relative = np.asarray(enlarged) / np.asarray(enlarged).max()
    image = base + _OPACITY * relative[..., None] * (np.array(_COLOUR) - base)
    inside = relative >= PEAK_FRACTION
    image[_border(inside)] = 255
    image[_border(~inside)] = 0
    return image.round().astype(np.uint8)


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of `mask` that have a neighbour (left, right, above, below) outside of it."""
    padded = np.pad(mask, 1, mode="edge")
    interior = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~interior
