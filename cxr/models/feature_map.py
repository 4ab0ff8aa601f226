"""Feature maps of timm backbones, converted to one memory layout."""

from math import isqrt
from typing import Any

from torch import Tensor, nn


def to_feature_map(backbone: nn.Module, features: Tensor) -> Tensor | None:
    """Return the features as a square map [images, side, side, features], or None if they do not form a square.

    Args:
        backbone: the timm model that computed the features.
        features: [images, features, rows, columns], [images, rows, columns, features], or tokens
            [images, tokens, features], with or without prefix tokens such as the class token.
    """
    if features.ndim == 3:
        return _tokens_to_map(features, num_prefix_tokens(backbone))
    if features.ndim != 4:
        return None
    feature_map = features if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else features.permute(0, 2, 3, 1)
    return feature_map if feature_map.shape[1] == feature_map.shape[2] else None


def num_prefix_tokens(backbone: Any) -> int:
    """Return the number of tokens that precede the patch tokens of a transformer; 0 for other models."""
    return getattr(backbone, "num_prefix_tokens", 0)


def _tokens_to_map(tokens: Tensor, prefix: int) -> Tensor | None:
    num_tokens = tokens.shape[1]
    # Models with class attention return their tokens without the prefix.
    for num_patches in (num_tokens - prefix, num_tokens):
        if isqrt(num_patches) ** 2 == num_patches:
            return tokens[:, num_tokens - num_patches :].unflatten(1, (isqrt(num_patches), -1))
    return None
