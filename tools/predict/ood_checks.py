"""Warnings for images that are clearly not frontal chest radiographs, by three simple rules.

- colour: the channels of more than `COLOUR_FRACTION` of the pixels differ by more than `COLOUR_LEVELS` gray levels.
- aspect ratio: width / height is outside `ASPECT_RATIOS`.
- layout: the middle (spine and heart) is no brighter than the mean of the lung fields and the upper corners, as in
  inverted images.

Images with warnings are still predicted. The rules are incomplete: lateral views, and gray photographs with a bright
middle, get no warning.

Measured: the layout rule warns of 5 of 2,430 real frontal images of NIH (0.2 %; one is in fact inverted, four have
white borders), and of 2,425 of the same images inverted (99.8 %). It warns of none of the 1,200 synthetic images of the
demo, and of all of them inverted. The colour rule warns of none of 91 files as NIH ships them, 19 of them RGBA. Of the
112,120 original sizes in NIH's table, 5 are outside `ASPECT_RATIOS`.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.images.decode import open_image
from cxr.images.resize import resize

COLOUR_LEVELS = 24
COLOUR_FRACTION = 0.05
ASPECT_RATIOS = (0.6, 1.6)
_COLOUR_SIDE = 256  # pixels a side at which colour is measured
_GRID = 32
# Rows and columns of the grid.
_MIDDLE = (np.s_[7:26, 13:19],)
_LUNGS = (np.s_[9:20, 6:11], np.s_[9:20, 21:26])
_CORNERS = (np.s_[:5, :5], np.s_[:5, 27:])


def shape_warnings(gray: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> list[str]:
    """Return the warnings of the rules for aspect ratio and layout.

    Args:
        gray: the original image, uint8 [height, width].
        pixels: the resized image, uint8 [size, size].
    """
    height, width = gray.shape
    lowest, highest = ASPECT_RATIOS
    warnings = [] if lowest <= width / height <= highest else [f"unusual aspect ratio, {width} x {height}"]
    return warnings if contrast(pixels) > 0 else [*warnings, "layout unlike a frontal chest radiograph, or inverted"]


def colour_warnings(file: bytes) -> list[str]:
    """Return the warnings of the colour rule for an image file."""
    fraction = colour_fraction(file)
    return [f"colour in {fraction:.0%} of the pixels"] if fraction > COLOUR_FRACTION else []


def contrast(pixels: NDArray[np.uint8]) -> float:
    """Return the mean gray level of the middle of uint8 [size, size], less that of lung fields and upper corners."""
    grid = resize(pixels, _GRID)
    middle, lungs, corners = (np.mean([grid[part].mean() for part in parts]) for parts in (_MIDDLE, _LUNGS, _CORNERS))
    return float(middle - (lungs + corners) / 2)


def colour_fraction(file: bytes) -> float:
    """Return the fraction of an image file's pixels whose channels differ by more than `COLOUR_LEVELS`."""
    with open_image(file) as image:
        if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
            return 0.0
        # Draft mode decodes a JPEG at reduced size, several times faster.
        image.draft("RGB", (_COLOUR_SIDE, _COLOUR_SIDE))
        small = image.convert("RGB").resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX)
    channels = np.asarray(small).astype(np.int16)
    return float((np.ptp(channels, axis=2) > COLOUR_LEVELS).mean())
