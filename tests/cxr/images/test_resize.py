import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.images.resize import resize, triangle_weights


def triangle(source: int, target: int) -> NDArray[np.float64]:
    """Return the exact weights [target, source]: triangles of the half width `scale`, at least 1."""
    scale = source / target
    centers = (np.arange(target) + 0.5) * scale - 0.5
    weights = np.maximum(1 - np.abs(np.arange(source) - centers[:, None]) / max(scale, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 99))
def test_it_is_the_antialiased_bilinear_mean_up_to_rounding(height: int, width: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    exact = triangle(height, size) @ pixels @ triangle(width, size).T
    resized = resize(pixels, size)
    assert resized.shape == (size, size)
    assert resized.dtype == np.uint8
    # Half a gray level is due to rounding the result, the rest to rounding the weights to 14 bits.
    assert np.abs(resized - exact).max() <= 0.57


@pytest.mark.parametrize(("source", "target"), [(1024, 300), (1024, 1024), (320, 128), (128, 300), (3, 1), (1, 7)])
def test_the_weights_of_each_pixel_add_up_to_one(source: int, target: int) -> None:
    first, weights = triangle_weights(source, target)
    assert (weights.sum(axis=1) == 2**14).all()
    assert first.min() >= 0
    assert (first + weights.shape[1]).max() <= source


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_uniform_image_keeps_its_level(level: int) -> None:
    assert (resize(np.full((301, 97), level, np.uint8), 64) == level).all()


def test_resizing_to_the_same_size_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert np.array_equal(resize(pixels, 64), pixels)


@pytest.mark.parametrize(("side", "size"), [(1024, 300), (320, 224), (100, 224)])
def test_it_agrees_with_pillow_within_a_gray_level(side: int, size: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (side, side), np.uint8)
    pillow = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    assert np.abs(resize(pixels, size).astype(int) - pillow).max() <= 1
