"""Views: each against numpy or scipy, and their mean against a plain loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.errors import InputError
from cxr.inference.params import TTA
from cxr.inference.tta import View, predict_probabilities, tta_views
from cxr.models.image_store import ImageStore
from cxr.models.prediction import predict_logits

CPU = torch.device("cpu")
NOTHING = TTA(hflip=False, translate=0, scale=0, five_crop=0)
SIDE = 16


def wanted(**changes: float) -> list[View]:
    return tta_views(NOTHING.model_copy(update=changes))


def noise(images: int = 3, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((images, 1, SIDE, SIDE), dtype=np.float32))


def pixels_of(images: int = 23) -> ImageStore:
    pixels = np.random.default_rng(1).integers(0, 256, (images, SIDE, SIDE), np.uint8)
    return ImageStore(pixels, np.arange(images), CPU)


def network(seed: int = 0) -> nn.Module:
    """A small network that tells left from right, and logits far enough from 0 to show any rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (SIDE - 2) ** 2, 15)).eval()


class Symmetric(nn.Module):
    """The same logits, to the last bit, for an image and its mirror image: a sum does not know the order."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels) + self.network(pixels.flip(3))
        return logits


@given(st.booleans(), st.sampled_from([0, 0.1]), st.sampled_from([0, 0.2]), st.sampled_from([0, 0.75]))
def test_there_are_as_many_views_as_asked_for(flip: bool, shift: float, scale: float, five_crops: float) -> None:
    views = wanted(hflip=flip, translate=shift, scale=scale, five_crop=five_crops)
    expected = ((5 if five_crops else 1) + (4 if shift else 0) + (2 if scale else 0)) * (2 if flip else 1)
    assert len(views) == len(set(views)) == expected
    assert (View() in views) == (five_crops == 0)


def test_the_image_itself_is_not_touched() -> None:
    (view,) = wanted()
    pixels = noise()
    assert view.apply(pixels) is pixels


def test_mirroring_is_exact_and_comes_after_each_other_view() -> None:
    pixels = noise()
    views = wanted(hflip=True, translate=0.1, scale=0.3)
    plain, mirrored = views[: len(views) // 2], views[len(views) // 2 :]
    for one, other in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(other.apply(pixels), np.flip(one.apply(pixels).numpy(), axis=3))


def rolled(pixels: Tensor, axis: int, by: int) -> NDArray[np.float32]:
    """The images moved by whole pixels, black where they came from."""
    moved = np.roll(pixels.numpy(), by, axis)
    edge = [slice(None)] * 4
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = 0
    return moved


def test_shifts_by_whole_pixels_are_left_right_up_and_down() -> None:
    pixels = noise()
    _, *shifts = wanted(translate=0.25)
    expected = [rolled(pixels, axis, by) for axis, by in ((3, -4), (3, 4), (2, -4), (2, 4))]
    for view, moved in zip(shifts, expected, strict=True):
        np.testing.assert_allclose(view.apply(pixels).numpy(), moved, atol=1e-5)


def test_five_crops_are_the_corners_and_the_centre_enlarged() -> None:
    pixels = noise()
    slices = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    for view, (row, column) in zip(wanted(five_crop=0.5), slices, strict=True):
        crop = pixels[:, :, row : row + 8, column : column + 8]
        enlarged = functional.interpolate(crop, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        # At its edge a crop borders on the rest of the image, which `interpolate` does not know.
        inner = (..., slice(1, -1), slice(1, -1))
        torch.testing.assert_close(view.apply(pixels)[inner], enlarged[inner], atol=1e-5, rtol=0)


def test_scales_are_smaller_and_larger() -> None:
    square = torch.zeros(1, 1, SIDE, SIDE)
    square[..., 4:12, 4:12] = 1
    _, smaller, larger = wanted(scale=0.25)
    assert smaller.apply(square).sum() == pytest.approx(36, rel=0.02)
    assert larger.apply(square).sum() == pytest.approx(100, rel=0.02)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 1.8), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.integers(0, 1000))
def test_every_window_is_scipys(side: float, right: float, down: float, seed: int) -> None:
    pixels = noise(1, seed)
    # The centre of pixel i lies at (i + 1/2) / SIDE of the side.
    along = ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * side
    rows, columns = ((along + 0.5 + offset) * SIDE - 0.5 for offset in (down, right))
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = map_coordinates(pixels[0, 0].numpy(), grid, order=1, mode="grid-constant", cval=0)
    np.testing.assert_allclose(View(side, right, down).apply(pixels)[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("batch_size", [2, 7, 23, 64])
def test_one_view_is_the_sigmoid_of_the_logits_bit_for_bit(batch_size: int) -> None:
    logits = predict_logits(network(), pixels_of(), batch_size)
    probabilities = predict_probabilities(network(), pixels_of(), batch_size, wanted())
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(probabilities, torch.sigmoid(logits.double()).numpy())


def test_several_views_are_the_mean_of_a_plain_loop() -> None:
    views = wanted(hflip=True, translate=0.1, scale=0.1, five_crop=0.8)
    (images,) = pixels_of().batches([np.arange(23)])
    with torch.inference_mode():
        each = [1 / (1 + np.exp(-network()(view.apply(images)).double().numpy())) for view in views]
    found = predict_probabilities(network(), pixels_of(), 5, views)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(found - each[0]).max() > 1e-3


def test_a_network_that_does_not_tell_left_from_right_is_unchanged_by_flip() -> None:
    plain, flipped = (predict_probabilities(Symmetric(), pixels_of(), 8, wanted(hflip=flip)) for flip in (False, True))
    np.testing.assert_allclose(plain, flipped, rtol=1e-15)


def test_a_signal_at_the_edge_is_seen_where_a_view_shows_it() -> None:
    """The network looks at the middle; the signal is a quarter of the side to its right."""

    class Middle(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return (pixels[:, 0, 7:9, 7:9].mean(dim=(1, 2)) * 100 - 50)[:, None].expand(-1, 15)

    images = np.zeros((1, SIDE, SIDE), np.uint8)
    images[0, 7:9, 11:13] = 255
    pixels = ImageStore(images, np.arange(1), CPU)
    seen = [predict_probabilities(Middle(), pixels, 2, [view])[0, 0] for view in wanted(translate=0.25)]
    np.testing.assert_allclose(seen, [0, 1, 0, 0, 0], atol=1e-9)
    mean = predict_probabilities(Middle(), pixels, 2, wanted(translate=0.25))
    np.testing.assert_allclose(mean, np.full((1, 15), 0.2), atol=1e-9)


def test_pixels_are_read_once_for_all_views() -> None:
    class Counted(ImageStore):
        count = 0

        def read(self, indices: NDArray[np.int64]) -> Tensor:
            Counted.count += len(indices)
            return super().read(indices)

    images = np.zeros((9, SIDE, SIDE), np.uint8)
    counted = Counted(images, np.arange(9), CPU)
    predict_probabilities(network(), counted, 4, wanted(hflip=True, translate=0.1))
    assert Counted.count == 9


def test_an_output_of_nan_is_an_input_error() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(SIDE * SIDE, 15))
    network.get_buffer("0.running_var").fill_(-1)
    images = ImageStore(np.ones((2, SIDE, SIDE), np.uint8), np.arange(2), CPU)
    with pytest.raises(InputError, match="output of the network is nan"):
        predict_probabilities(network, images, 2, [View()])
