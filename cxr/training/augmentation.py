"""Data augmentation of whole batches on the device, with separate random parameters for each image.

The parameters of an epoch are drawn in advance on the CPU: they are the same for every device, and no step waits for
them.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr.training.params import Augment

# Random erasing (Zhong et al., AAAI 2020): area of the rectangle as a fraction of the image, and height / width.
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 3.3)
ERASED_VALUE = 0.5
NUM_AUGMENTATION_PARAMS = 13  # random numbers for each image


def draw_augmentation_params(images: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Draw the parameters of one epoch: float32 [images, NUM_AUGMENTATION_PARAMS], uniform from 0 to 1."""
    return random.random((images, NUM_AUGMENTATION_PARAMS), dtype=np.float32)


def augment(images: Tensor, params: Tensor, strength: Augment) -> Tensor:
    """Transform each image according to its random parameters.

    Args:
        images: float [images, 1, height, width], from 0 to 1.
        params: float [images, NUM_AUGMENTATION_PARAMS], from 0 to 1.
        strength: the maximum of each transformation; a transformation with 0 is skipped.

    Returns:
        float [images, 1, height, width], from 0 to 1.
    """
    if strength.hflip or strength.degrees or strength.translate or strength.scale or strength.shear:
        images = _affine(images, params[:, :6], strength)
    if strength.brightness or strength.contrast:
        images = _color_jitter(images, params[:, 6:8], strength)
    if strength.random_erasing:
        images = _random_erasing(images, params[:, 8:13], strength.random_erasing)
    return images


def mixup(images: Tensor, labels: Tensor, mixup_lambda: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image and its labels with those at the mirrored position of the batch (Zhang et al., ICLR 2018).

    The batch is shuffled already, so reversing it gives random pairs.

    Args:
        images: float [images, 1, height, width].
        labels: float [images, classes].
        mixup_lambda: weight of each image itself, float scalar from 0 to 1; its partner has 1 - mixup_lambda.
    """
    return torch.lerp(images.flip(0), images, mixup_lambda), torch.lerp(labels.flip(0), labels, mixup_lambda)


def _affine(images: Tensor, params: Tensor, strength: Augment) -> Tensor:
    """Flip, rotate, translate, scale and shear with one bilinear interpolation; the padding is black."""
    matrix = affine_matrices(params, strength)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def affine_matrices(params: Tensor, strength: Augment) -> Tensor:
    """Return the matrices from output to input coordinates for `affine_grid`, float [images, 2, 3].

    The columns of `params`, float [images, 6], are: flip, angle, translation along x and y, scale, shear.
    """
    signed = 2 * params - 1
    mirror = torch.where(params[:, 0] < strength.hflip, -1.0, 1.0)
    angle = signed[:, 1] * math.radians(strength.degrees)
    # Coordinates run from -1 to 1, so the side of an image has length 2.
    shift = signed[:, 2:4] * 2 * strength.translate
    scale = 1 / (1 + signed[:, 4] * strength.scale)
    shear = torch.tan(signed[:, 5] * math.radians(strength.shear))
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    top = torch.stack([mirror * cosine, mirror * (cosine * shear - sine), shift[:, 0]], dim=1)
    bottom = torch.stack([sine, sine * shear + cosine, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _color_jitter(images: Tensor, params: Tensor, strength: Augment) -> Tensor:
    brightness, contrast = (2 * params - 1).unbind(1)
    gain = (1 + brightness * strength.brightness).view(-1, 1, 1, 1)
    spread = (1 + contrast * strength.contrast).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    # ((images - mean) * spread + mean) * gain, in one operation.
    return torch.addcmul(mean * (1 - spread) * gain, images, spread * gain).clamp_(0, 1)


def _random_erasing(images: Tensor, params: Tensor, probability: float) -> Tensor:
    """Fill a rectangle with gray, in each image with the given probability."""
    _, _, height, width = images.shape
    chosen, area, aspect, row, column = params.unbind(1)
    area = _rescale(area, *ERASED_AREA)
    aspect = torch.exp(_rescale(aspect, math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
    rows = _interval_mask(row, torch.sqrt(area * aspect), height)
    columns = _interval_mask(column, torch.sqrt(area / aspect), width)
    erased = rows[:, :, None] & columns[:, None, :] & (chosen < probability)[:, None, None]
    return images.masked_fill(erased[:, None], ERASED_VALUE)


def _rescale(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _interval_mask(position: Tensor, extent: Tensor, length: int) -> Tensor:
    """Return a mask of `length` pixels, bool [images, length], that is True on an interval of each image.

    `extent` is the length of the interval as a fraction of `length`; `position` moves it from the start (0) to the
    end (1).
    """
    extent = extent.clamp(max=1)
    start = position * (1 - extent)
    centers = (torch.arange(length, device=position.device) + 0.5) / length
    return (centers >= start[:, None]) & (centers < (start + extent)[:, None])
