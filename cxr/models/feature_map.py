"""The grid of features that a network of timm's makes of an image, whatever order it keeps them in."""

from math import isqrt
from typing import Any

from torch import Tensor, nn


def to_feature_map(backbone: nn.Module, features: Tensor) -> Tensor | None:
    """Features as timm gives them, in the order [images, side, side, features]; images are square, so the grid is.

    Args:
        backbone: the network that they are of.
        features: [images, features, rows, columns], [images, rows, columns, features], or tokens
            [images, tokens, features], with a prefix such as a class token or, as before class attention, without it.

    Returns:
        None where they are no square grid.
    """
    if features.ndim == 3:
        return _tokens_as_grid(features, num_prefix_tokens(backbone))
    if features.ndim != 4:
        return None
    grid = features if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else features.permute(0, 2, 3, 1)
    return grid if grid.shape[1] == grid.shape[2] else None


def num_prefix_tokens(backbone: Any) -> int:
    """How many tokens of a transformer stand before those of its places."""
    return getattr(backbone, "num_prefix_tokens", 0)


def _tokens_as_grid(tokens: Tensor, prefix: int) -> Tensor | None:
    count = tokens.shape[1]
    for places in (count - prefix, count):
        if isqrt(places) ** 2 == places:
            return tokens[:, count - places :].unflatten(1, (isqrt(places), -1))
    return None
