"""Test-time augmentation: average the probabilities over several views of each image.

The views are the whole image, or five crops in its place; then the whole image translated (`translate`) and scaled
(`scale`); and a horizontal flip of each of these (`hflip`). With all of them off, the only view is the image itself.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.errors import InputError
from cxr.core.progress import progress
from cxr.inference.params import TTA
from cxr.models.image_store import ImageStore
from cxr.models.prediction import sequential_batches


class View(NamedTuple):
    """A square crop of the image, resized to the image's size, then flipped horizontally or not.

    Pixels outside the image are black. A crop of the image's size with its centre to the right translates the image to
    the left; a crop larger than the image shrinks it.
    """

    side: float = 1  # of the crop, as a fraction of the image's side
    right: float = 0  # from the image's centre to the crop's, as a fraction of the image's side
    down: float = 0
    hflip: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Return this view of each image, float [images, 1, height, width], in the shape of `images`."""
        # Resampling the whole image, or flipping it by resampling, would change the last digits.
        is_whole = (self.side, self.right, self.down) == (1, 0, 0)
        view = images if is_whole else self._resample(images)
        return view.flip(3) if self.hflip else view

    def _resample(self, images: Tensor) -> Tensor:
        # Coordinates run from -1 to 1, so a distance is twice its fraction of the side.
        values = (self.side, 0, 2 * self.right, 0, self.side, 2 * self.down)
        # Each number is filled in on the device, since a copy of a list would wait for a GPU.
        matrix = torch.stack([images.new_full((), value) for value in values]).view(2, 3)
        grid = functional.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def tta_views(tta: TTA) -> list[View]:
    """Return the views of `tta`, at least one, in the order given in the module's docstring."""
    views = _five_crop(tta.five_crop) if tta.five_crop else [View()]
    if shift := tta.translate:
        views += [View(right=shift), View(right=-shift), View(down=shift), View(down=-shift)]
    if scale := tta.scale:
        views += [View(side=1 / (1 - scale)), View(side=1 / (1 + scale))]
    return views + [view._replace(hflip=True) for view in views if tta.hflip]


def predict_probabilities(
    network: nn.Module, images: ImageStore, batch_size: int, views: list[View]
) -> NDArray[np.float64]:
    """Predict the mean probability over `views`, float64 [images, 15].

    With the image itself as the only view, the result is the sigmoid of `predict_logits`, bit for bit.

    Raises:
        InputError: if the output of the network is nan.
    """
    network.eval()
    batches = sequential_batches(np.arange(len(images)), batch_size)
    with torch.inference_mode():
        pixels = progress(images.batches(batches), "predict", len(batches), "batches")
        logits = torch.cat([_logits(network, batch, views) for batch in pixels], dim=1).cpu()
        if logits.isnan().any():
            raise InputError("the output of the network is nan: its weights are damaged; train again")
        # In one call: on a CPU the last digit of a sigmoid depends on the element's position in the tensor.
        return torch.sigmoid(logits.double()).mean(dim=0).numpy()


def _logits(network: nn.Module, images: Tensor, views: list[View]) -> Tensor:
    """Return the logits, float [views, images, 15]."""
    return torch.stack([network(view.apply(images)).float() for view in views])


def _five_crop(side: float) -> list[View]:
    """Return crops of the four corners and the centre."""
    distance = (1 - side) / 2
    corners = [View(side, right, down) for down in (-distance, distance) for right in (-distance, distance)]
    return [*corners, View(side)]
