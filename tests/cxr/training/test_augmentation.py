import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from cxr.training.augmentation import ERASED_VALUE, NUM_AUGMENTATION_PARAMS, augment, draw_augmentation_params, mixup
from cxr.training.params import Augment

NOTHING = Augment(hflip=0, degrees=0, translate=0, scale=0, shear=0, brightness=0, contrast=0, random_erasing=0)
UNCHANGED = 0.5  # of every signed draw: the middle of its range


def pictures(count: int = 4, size: int = 33) -> Tensor:
    """Smooth pictures with a dark edge, so that resampling errors and what lies outside stay small."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[0:size, 0:size] / size - 0.5
    blobs = [np.exp(-((row - y) ** 2 + (column - x) ** 2) / 0.02) for y, x in random.uniform(-0.2, 0.2, (count, 2))]
    return torch.tensor(np.array(blobs), dtype=torch.float32).unsqueeze(1)


def draws(count: int = 4, **places: float) -> Tensor:
    """Draws in the middle of their ranges, but for the named places, as `_0=1.0`."""
    values = torch.full((count, NUM_AUGMENTATION_PARAMS), UNCHANGED)
    for place, value in places.items():
        values[:, int(place.removeprefix("_"))] = value
    return values


def strong(**changes: float) -> Augment:
    return NOTHING.model_copy(update=changes)


def test_no_strength_changes_nothing() -> None:
    assert torch.equal(augment(pictures(), draws(), NOTHING), pictures())


def test_flip_is_the_mirror_image() -> None:
    moved = augment(pictures(), draws(_0=0.2), strong(hflip=0.5))
    torch.testing.assert_close(moved, pictures().flip(3), atol=1e-5, rtol=0)
    kept = augment(pictures(), draws(_0=0.7), strong(hflip=0.5))
    torch.testing.assert_close(kept, pictures(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("place", "strength", "expected"),
    [
        (1, {"degrees": 30.0}, {"angle": -30.0}),
        (2, {"translate": 0.1}, {"translate": [-3.3, 0.0]}),
        (3, {"translate": 0.1}, {"translate": [0.0, -3.3]}),
        (4, {"scale": 0.25}, {"scale": 1.25}),
        (5, {"shear": 20.0}, {"shear": [20.0, 0.0]}),
    ],
)
def test_each_movement_is_torchvisions(place: int, strength: dict[str, float], expected: dict[str, float]) -> None:
    moved = augment(pictures(), draws(4, **{f"_{place}": 1.0}), strong(**strength))
    arguments = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0], **expected}
    reference = affine(pictures(), interpolation=InterpolationMode.BILINEAR, **arguments)
    # Torchvision shifts by whole pixels only: 3.3 of 33 pixels is resampled here and there alike.
    assert (moved - reference).abs().max() < 0.06
    assert (moved - pictures()).abs().max() > 0.1


def test_contrast_and_brightness_are_the_closed_form() -> None:
    pixels = pictures() * 0.5
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    brighter = augment(pixels, draws(_6=1.0), strong(brightness=0.3))
    torch.testing.assert_close(brighter, pixels * 1.3)
    starker = augment(pixels, draws(_7=1.0), strong(contrast=0.4))
    torch.testing.assert_close(starker, ((pixels - mean) * 1.4 + mean).clamp(0, 1))


def test_erasing_fills_one_rectangle_of_the_drawn_area() -> None:
    pixels = torch.zeros(500, 1, 64, 64)
    numbers = torch.from_numpy(draw_augmentation_params(500, np.random.default_rng(1)))
    erased = augment(pixels, numbers, strong(random_erasing=0.4)) == ERASED_VALUE
    touched = erased.flatten(1).any(1)
    assert 0.33 < touched.float().mean() < 0.47
    areas = erased[touched].flatten(1).float().mean(1)
    assert areas.min() > 0.01
    assert areas.max() < 0.36
    for picture in erased[touched][:20, 0]:
        rows, columns = picture.any(1), picture.any(0)
        assert torch.equal(picture, rows[:, None] & columns[None, :])


def test_each_image_has_numbers_of_its_own() -> None:
    same = pictures(1).expand(8, -1, -1, -1)
    numbers = torch.from_numpy(draw_augmentation_params(8, np.random.default_rng(2)))
    varied = augment(same, numbers, strong(degrees=20, brightness=0.2, translate=0.1))
    assert all((varied[0] - varied[other]).abs().max() > 0.01 for other in range(1, 8))


def test_output_stays_between_black_and_white() -> None:
    strength = Augment(
        hflip=0.5, degrees=30, translate=0.2, scale=0.3, shear=10, brightness=0.5, contrast=0.5, random_erasing=0.5
    )
    varied = augment(pictures(64), torch.from_numpy(draw_augmentation_params(64, np.random.default_rng(3))), strength)
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_mixup_is_the_weighted_mean_of_images_and_labels() -> None:
    pixels, labels = pictures(), torch.eye(4)
    mixed, mixed_labels = mixup(pixels, labels, torch.tensor(0.3))
    torch.testing.assert_close(mixed[0], 0.3 * pixels[0] + 0.7 * pixels[3])
    torch.testing.assert_close(mixed_labels[1], torch.tensor([0.0, 0.3, 0.7, 0.0]))
    unmixed, unmixed_labels = mixup(pixels, labels, torch.tensor(1.0))
    assert torch.equal(unmixed, pixels)
    assert torch.equal(unmixed_labels, labels)
