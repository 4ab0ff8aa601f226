"""What is plainly no frontal chest X-ray: three rules that anybody can check.

- colour: the channels of more than `COLOUR_SHARE` of the pixels differ by more than `COLOUR_LEVELS`.
- proportions: width / height is outside of `PROPORTIONS`.
- layout: the middle, where spine and heart are, is no brighter than the mean of the lung fields and the upper corners.
  So it is in inverted pictures, and in many others.

A flagged picture is predicted all the same, and one that is not flagged may be anything: a lateral view, or a gray
photo with a bright middle, passes.

Measured: of 2,430 real frontal images of NIH's the layout flags 5 (0.2 %): one that is inverted indeed, and four whose
outer parts were left white. Of the same 2,430 inverted it flags 2,425 (99.8 %). Of the 1,200 drawings of the demo it
flags none, and all of them inverted. Colour flags none of 91 images as NIH ships them, 19 of them RGBA. Of the 112,120
original sizes in NIH's table 5 are outside of the proportions.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.images.resize import resize

COLOUR_LEVELS = 24
COLOUR_SHARE = 0.05
PROPORTIONS = (0.6, 1.6)
_LOOK = 256  # pixels a side that are enough to see colour
_GRID = 32
# Rows and columns of the grid.
_MIDDLE = (np.s_[7:26, 13:19],)
_LUNGS = (np.s_[9:20, 6:11], np.s_[9:20, 21:26])
_CORNERS = (np.s_[:5, :5], np.s_[:5, 27:])


def shape_flags(gray: NDArray[np.uint8], square: NDArray[np.uint8]) -> list[str]:
    """What speaks against a frontal chest X-ray but colour, in words; empty where nothing does.

    Args:
        gray: the picture as it came, uint8 [height, width].
        square: the same resized, uint8 [size, size].
    """
    height, width = gray.shape
    lowest, highest = PROPORTIONS
    flags = [] if lowest <= width / height <= highest else [f"odd proportions, {width} x {height}"]
    return flags if contrast(square) > 0 else [*flags, "not laid out as a frontal chest X-ray, or inverted"]


def colour_flags(file: bytes) -> list[str]:
    """That an image file shows colour, in words; empty where it does not."""
    share = coloured_share(file)
    return [f"colour in {share:.0%} of the pixels"] if share > COLOUR_SHARE else []


def contrast(square: NDArray[np.uint8]) -> float:
    """By how many gray levels the middle of uint8 [size, size] is brighter than lung fields and upper corners."""
    grid = resize(square, _GRID)
    middle, lungs, corners = (np.mean([grid[part].mean() for part in parts]) for parts in (_MIDDLE, _LUNGS, _CORNERS))
    return float(middle - (lungs + corners) / 2)


def coloured_share(file: bytes) -> float:
    """The share of an image file's pixels whose channels differ by more than `COLOUR_LEVELS`; 0 in a gray file."""
    with Image.open(BytesIO(file)) as image:
        if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
            return 0.0
        # A JPEG is decoded at a fraction of its size, in a fraction of the time.
        image.draft("RGB", (_LOOK, _LOOK))
        small = image.convert("RGB").resize((_LOOK, _LOOK), Image.Resampling.BOX)
    channels = np.asarray(small).astype(np.int16)
    return float((np.ptp(channels, axis=2) > COLOUR_LEVELS).mean())
