"""Saliency maps as coloured overlays on images."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.files import atomic_write
from cxr.reporting.plots import file_name
from tools.predict.reading import InputImage

_OPACITY = 0.6  # at the maximum of a map


class OverlayFolder:
    """A folder of overlays, `IMAGE.CLASS.png`.

    Files of earlier runs are overwritten, input images are not. Input images of the same name, from different folders,
    get overlays with numbers: `IMAGE.CLASS-2.png`.
    """

    def __init__(self, folder: Path, inputs: list[Path]) -> None:
        """Check the folder.

        Raises:
            InputError: if it is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--saliency-maps {folder}: this is a file; give a folder")
        self._folder = folder
        self._taken = {path.resolve() for path in inputs}

    def write(self, image: InputImage, name: str, saliency: NDArray[np.float64]) -> Path:
        """Write the overlay of the class `name` and return its path.

        Args:
            image: with `display`.
            name: of the class.
            saliency: the saliency map, float [side, side], 0 or more.
        """
        path = self._unused_path(f"{image.file.stem}.{file_name(name)}")
        with atomic_write(path) as temporary:
            Image.fromarray(overlay(image.display, saliency)).save(temporary, format="PNG")
        return path

    def _unused_path(self, stem: str) -> Path:
        path, number = self._folder / f"{stem}.png", 1
        while path.resolve() in self._taken:
            number += 1
            path = self._folder / f"{stem}-{number}.png"
        self._taken.add(path.resolve())
        return path


def overlay(gray: NDArray[np.uint8], saliency: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an image with a saliency map in colour over it, uint8 [height, width, 3].

    Colour and opacity are proportional to the map; a map of zeros leaves the image unchanged.

    Args:
        gray: uint8 [height, width].
        saliency: float [side, side], 0 or more.
    """
    height, width = gray.shape
    relative = (saliency / (saliency.max() or 1)).astype(np.float32)
    enlarged = np.asarray(Image.fromarray(relative).resize((width, height), Image.Resampling.BILINEAR))
    colour = mpl.colormaps["inferno"](enlarged)[..., :3] * 255
    opacity = _OPACITY * enlarged[..., None]
    return ((1 - opacity) * gray[..., None] + opacity * colour).round().astype(np.uint8)
