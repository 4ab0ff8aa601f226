"""PNG files of saliency maps over images."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.files import atomic_write, is_special
from cxr.reporting.overlay import overlay
from cxr.reporting.plots import file_name
from tools.output_file import check_output_folder
from tools.predict.reading import InputImage


class OverlayFolder:
    """A folder of overlays, `IMAGE.CLASS.png`.

    Files of earlier runs are overwritten, input images are not. Input images of the same name, from different folders,
    get overlays with numbers: `IMAGE.CLASS-2.png`.
    """

    def __init__(self, folder: Path, inputs: list[Path]) -> None:
        """Check the folder.

        Raises:
            InputError: if it is a file, or cannot be created.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--saliency-maps {folder}: this is a file; give a folder")
        check_output_folder("--saliency-maps", folder)
        self._folder = folder
        self._taken = {os.path.realpath(path) for path in inputs}

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
        while os.path.realpath(path) in self._taken or is_special(path):
            number += 1
            path = self._folder / f"{stem}-{number}.png"
        self._taken.add(os.path.realpath(path))
        return path
