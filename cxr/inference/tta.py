"""Test-time augmentation: several views of each image, whose probabilities are averaged.

The whole image comes first, or five crops in its place; then what `shift` and `scale` make of the whole image; and
`flip` adds the mirror image of each of these. With all off there is one view: the image itself, untouched.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.progress import progress
from cxr.inference.params import TTA
from cxr.models.image_store import ImageStore
from cxr.models.prediction import sequential_batches


class View(NamedTuple):
    """A square window onto the image, resampled to the image's size; then mirrored, or not.

    What lies outside the image is black. A window of the image's size that lies to the right shows the image shifted
    to the left, and one that is larger shows it smaller.
    """

    side: float = 1  # the window's, as a share of the image's
    right: float = 0  # from the image's centre to the window's, as a share of the image's side
    down: float = 0
    is_mirrored: bool = False

    def of(self, pixels: Tensor) -> Tensor:
        """This view of each image, float [images, 1, height, width], on the device of `pixels`, of the same shape."""
        # Resampling the whole image, or mirroring it by resampling, would change last digits.
        is_whole = (self.side, self.right, self.down) == (1, 0, 0)
        seen = pixels if is_whole else self._resampled(pixels)
        return seen.flip(3) if self.is_mirrored else seen

    def _resampled(self, pixels: Tensor) -> Tensor:
        # Coordinates run from -1 to 1: a distance of a share of the side is twice that share.
        rows = [[self.side, 0, 2 * self.right], [0, self.side, 2 * self.down]]
        matrix = torch.tensor(rows, dtype=pixels.dtype, device=pixels.device).expand(len(pixels), 2, 3)
        grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
        return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def tta_views(wanted: TTA) -> list[View]:
    """The views that the parameters ask for, in the order of the module's docstring; one at least."""
    views = _five_crops(wanted.five_crop) if wanted.five_crop else [View()]
    if shift := wanted.translate:
        views += [View(right=shift), View(right=-shift), View(down=shift), View(down=-shift)]
    if scale := wanted.scale:
        views += [View(side=1 / (1 - scale)), View(side=1 / (1 + scale))]
    return views + [view._replace(is_mirrored=True) for view in views if wanted.hflip]


def predict_probabilities(
    network: nn.Module, pixels: ImageStore, batch_size: int, views: list[View]
) -> NDArray[np.float64]:
    """The mean probability over `views` of each image, float64 [images, 15], in the order of `pixels`.

    Each batch is read once and seen in all views. The untouched view alone gives the sigmoid of `predict_logits`, bit
    for bit.
    """
    network.eval()
    batches = sequential_batches(np.arange(len(pixels)), batch_size)
    with torch.inference_mode():
        seen = progress(pixels.batches(batches), "predict", len(batches), "batches")
        logits = torch.cat([_logits(network, images, views) for images in seen], dim=1)
        # All at once: on a CPU the last digit of a sigmoid depends on its place in the tensor.
        return torch.sigmoid(logits.double()).mean(dim=0).cpu().numpy()


def _logits(network: nn.Module, images: Tensor, views: list[View]) -> Tensor:
    """Float [views, images, 15]."""
    return torch.stack([network(view.of(images)).float() for view in views])


def _five_crops(side: float) -> list[View]:
    """Windows in the four corners, and in the centre."""
    away = (1 - side) / 2
    corners = [View(side, right, down) for down in (-away, away) for right in (-away, away)]
    return [*corners, View(side)]
