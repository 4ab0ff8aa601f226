"""Heat maps laid over pictures."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.files import atomic_write
from cxr.reporting.plots import file_name

_OPACITY = 0.6  # where a map is highest


class Overlays:
    """PNG files in a folder, `PICTURE.CLASS.png`, each a class's map over a picture.

    A run overwrites what an earlier run wrote, never one of its own pictures or inputs: of pictures of one name, from
    several folders, the later ones get a number.
    """

    def __init__(self, folder: Path, inputs: list[Path]) -> None:
        """Make the folder; InputError where a file has its name."""
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--heatmaps {folder}: that is a file; name a folder")
        self._folder = folder
        self._taken = {path.resolve() for path in inputs}

    def write(self, picture: Path, shown: NDArray[np.uint8], name: str, heat: NDArray[np.float64]) -> Path:
        """Write the map `heat` of the class `name` over `shown`; return where.

        Args:
            picture: the file that `shown` came from.
            shown: uint8 [height, width].
            name: of the class.
            heat: float [side, side], 0 or more, of the same picture.
        """
        path = self._free(f"{picture.stem}.{file_name(name)}")
        with atomic_write(path) as temporary:
            Image.fromarray(overlay(shown, heat)).save(temporary, format="PNG")
        return path

    def _free(self, stem: str) -> Path:
        path, number = self._folder / f"{stem}.png", 1
        while path.resolve() in self._taken:
            number += 1
            path = self._folder / f"{stem}-{number}.png"
        self._taken.add(path.resolve())
        return path


def overlay(shown: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`heat`, float [side, side], as colour over `shown`, uint8 [height, width]: uint8 [height, width, 3].

    Colour and opacity follow the share of the map's highest value; a map of zeros leaves the picture as it is.
    """
    height, width = shown.shape
    share = (heat / (heat.max() or 1)).astype(np.float32)
    spread = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    colour = mpl.colormaps["inferno"](spread)[..., :3] * 255
    opacity = _OPACITY * spread[..., None]
    return ((1 - opacity) * shown[..., None] + opacity * colour).round().astype(np.uint8)
