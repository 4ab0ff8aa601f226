"""Augmentation of a whole batch on its device, with numbers of its own for each image.

The numbers are drawn beforehand, on the CPU, for a whole epoch: the same on every device, and no step waits for them.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr.training.params import Augment

# Erased rectangles: their area as a share of the image's, and their height over their width, as in the paper that
# introduced random erasing (Zhong et al., AAAI 2020).
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 3.3)
ERASED_VALUE = 0.5
NUM_AUGMENTATION_PARAMS = 13  # uniform numbers that one image needs


def draw_augmentation_params(images: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The random numbers of one epoch: float32 [images, DRAWS], uniform from 0 to 1."""
    return random.random((images, NUM_AUGMENTATION_PARAMS), dtype=np.float32)


def augment(pixels: Tensor, draws: Tensor, strength: Augment) -> Tensor:
    """Vary each image as its `draws` say.

    Args:
        pixels: float [images, 1, height, width], from 0 to 1.
        draws: float [images, DRAWS], from 0 to 1.
        strength: the largest change of each kind; all zeros change nothing.

    Returns:
        float [images, 1, height, width], from 0 to 1.
    """
    if strength.hflip or strength.degrees or strength.translate or strength.scale or strength.shear:
        pixels = _move(pixels, draws[:, :6], strength)
    if strength.brightness or strength.contrast:
        pixels = _colour_jitter(pixels, draws[:, 6:8], strength)
    if strength.random_erasing:
        pixels = _erase(pixels, draws[:, 8:13], strength.random_erasing)
    return pixels


def mixup(pixels: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image and its labels with those of its mirror place in the batch (Zhang et al., ICLR 2018).

    A batch is in random order already, so the reversed batch is as good a partner as a permuted one.

    Args:
        pixels: float [images, 1, height, width].
        labels: float [images, classes].
        share: float scalar, from 0 to 1: how much of its own each image keeps.
    """
    return torch.lerp(pixels.flip(0), pixels, share), torch.lerp(labels.flip(0), labels, share)


def _move(pixels: Tensor, draws: Tensor, strength: Augment) -> Tensor:
    """Flip, rotate, shift, scale and shear in one resampling; what comes from outside the image is black."""
    matrix = affine_matrices(draws, strength)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def affine_matrices(draws: Tensor, strength: Augment) -> Tensor:
    """The map from output to input coordinates of each image, float [images, 2, 3], for `affine_grid`.

    `draws`, float [images, 6]: whether to flip, angle, shift along x and y, scale, shear.
    """
    signed = 2 * draws - 1
    mirror = torch.where(draws[:, 0] < strength.hflip, -1.0, 1.0)
    angle = signed[:, 1] * math.radians(strength.degrees)
    # Coordinates run from -1 to 1: a shift by a share of the side is twice that share.
    shift = signed[:, 2:4] * 2 * strength.translate
    scale = 1 / (1 + signed[:, 4] * strength.scale)
    shear = torch.tan(signed[:, 5] * math.radians(strength.shear))
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    top = torch.stack([mirror * cosine, mirror * (cosine * shear - sine), shift[:, 0]], dim=1)
    bottom = torch.stack([sine, sine * shear + cosine, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _colour_jitter(pixels: Tensor, draws: Tensor, strength: Augment) -> Tensor:
    brightness, contrast = (2 * draws - 1).unbind(1)
    gain = (1 + brightness * strength.brightness).view(-1, 1, 1, 1)
    spread = (1 + contrast * strength.contrast).view(-1, 1, 1, 1)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    # ((pixels - mean) * spread + mean) * gain, in one pass over the pixels.
    return torch.addcmul(mean * (1 - spread) * gain, pixels, spread * gain).clamp_(0, 1)


def _erase(pixels: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Fill one rectangle with gray in a share of the images."""
    _, _, height, width = pixels.shape
    chosen, area, aspect, row, column = draws.unbind(1)
    area = _between(*ERASED_AREA, area)
    aspect = torch.exp(_between(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), aspect))
    rows = _inside(row, torch.sqrt(area * aspect), height)
    columns = _inside(column, torch.sqrt(area / aspect), width)
    erased = rows[:, :, None] & columns[:, None, :] & (chosen < probability)[:, None, None]
    return pixels.masked_fill(erased[:, None], ERASED_VALUE)


def _between(low: float, high: float, share: Tensor) -> Tensor:
    return low + (high - low) * share


def _inside(position: Tensor, extent: Tensor, length: int) -> Tensor:
    """Which of `length` places a stretch of `extent` (a share of the length) covers: bool [images, length].

    `position`, from 0 to 1, moves the stretch from one end to the other.
    """
    extent = extent.clamp(max=1)
    start = position * (1 - extent)
    places = (torch.arange(length, device=position.device) + 0.5) / length
    return (places >= start[:, None]) & (places < (start + extent)[:, None])
