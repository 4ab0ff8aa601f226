import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from cxr.training.augmentation import ERASED_VALUE, NUM_AUGMENTATION_PARAMS, augment, draw_augmentation_params, mixup
from cxr.training.params import Augment

NOTHING = Augment(hflip=0, degrees=0, translate=0, scale=0, shear=0, brightness=0, contrast=0, random_erasing=0)
NEUTRAL = 0.5  # the middle of the range of every parameter: no change


def blobs(count: int = 4, size: int = 33) -> Tensor:
    """Smooth images with a dark border, so that interpolation errors and the padding have little effect."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[0:size, 0:size] / size - 0.5
    images = [np.exp(-((row - y) ** 2 + (column - x) ** 2) / 0.02) for y, x in random.uniform(-0.2, 0.2, (count, 2))]
    return torch.tensor(np.array(images), dtype=torch.float32).unsqueeze(1)


def params(count: int = 4, **values: float) -> Tensor:
    """Neutral parameters of `count` images, but for the given columns: `_0=1.0` sets column 0."""
    found = torch.full((count, NUM_AUGMENTATION_PARAMS), NEUTRAL)
    for column, value in values.items():
        found[:, int(column.removeprefix("_"))] = value
    return found


def strong(**changes: float) -> Augment:
    return NOTHING.model_copy(update=changes)


def test_zero_strength_changes_nothing() -> None:
    assert torch.equal(augment(blobs(), params(), NOTHING), blobs())


def test_flip_is_the_mirror_image() -> None:
    transformed = augment(blobs(), params(_0=0.2), strong(hflip=0.5))
    torch.testing.assert_close(transformed, blobs().flip(3), atol=1e-5, rtol=0)
    kept = augment(blobs(), params(_0=0.7), strong(hflip=0.5))
    torch.testing.assert_close(kept, blobs(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("column", "strength", "expected"),
    [
        (1, {"degrees": 30.0}, {"angle": -30.0}),
        (2, {"translate": 0.1}, {"translate": [-3.3, 0.0]}),
        (3, {"translate": 0.1}, {"translate": [0.0, -3.3]}),
        (4, {"scale": 0.25}, {"scale": 1.25}),
        (5, {"shear": 20.0}, {"shear": [20.0, 0.0]}),
    ],
)
def test_each_transformation_equals_that_of_torchvision(
    column: int, strength: dict[str, float], expected: dict[str, float]
) -> None:
    transformed = augment(blobs(), params(4, **{f"_{column}": 1.0}), strong(**strength))
    arguments = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0], **expected}
    reference = affine(blobs(), interpolation=InterpolationMode.BILINEAR, **arguments)
    # Both interpolate, also at a shift by 3.3 of 33 pixels.
    assert (transformed - reference).abs().max() < 0.06
    assert (transformed - blobs()).abs().max() > 0.1


def test_contrast_and_brightness_have_their_closed_form() -> None:
    images = blobs() * 0.5
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    brighter = augment(images, params(_6=1.0), strong(brightness=0.3))
    torch.testing.assert_close(brighter, images * 1.3)
    sharper = augment(images, params(_7=1.0), strong(contrast=0.4))
    torch.testing.assert_close(sharper, ((images - mean) * 1.4 + mean).clamp(0, 1))


def test_erasing_fills_one_rectangle_of_a_random_area() -> None:
    images = torch.zeros(500, 1, 64, 64)
    random_params = torch.from_numpy(draw_augmentation_params(500, np.random.default_rng(1)))
    erased = augment(images, random_params, strong(random_erasing=0.4)) == ERASED_VALUE
    touched = erased.flatten(1).any(1)
    assert 0.33 < touched.float().mean() < 0.47
    areas = erased[touched].flatten(1).float().mean(1)
    assert areas.min() > 0.01
    assert areas.max() < 0.36
    for mask in erased[touched][:20, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])


def test_each_image_has_its_own_parameters() -> None:
    same = blobs(1).expand(8, -1, -1, -1)
    random_params = torch.from_numpy(draw_augmentation_params(8, np.random.default_rng(2)))
    augmented = augment(same, random_params, strong(degrees=20, brightness=0.2, translate=0.1))
    assert all((augmented[0] - augmented[other]).abs().max() > 0.01 for other in range(1, 8))


def test_output_stays_between_black_and_white() -> None:
    strength = Augment(
        hflip=0.5, degrees=30, translate=0.2, scale=0.3, shear=10, brightness=0.5, contrast=0.5, random_erasing=0.5
    )
    augmented = augment(blobs(64), torch.from_numpy(draw_augmentation_params(64, np.random.default_rng(3))), strength)
    assert augmented.min() >= 0
    assert augmented.max() <= 1


def test_mixup_is_the_weighted_mean_of_images_and_labels() -> None:
    images, labels = blobs(), torch.eye(4)
    mixed, mixed_labels = mixup(images, labels, torch.tensor(0.3))
    torch.testing.assert_close(mixed[0], 0.3 * images[0] + 0.7 * images[3])
    torch.testing.assert_close(mixed_labels[1], torch.tensor([0.0, 0.3, 0.7, 0.0]))
    unmixed, unmixed_labels = mixup(images, labels, torch.tensor(1.0))
    assert torch.equal(unmixed, images)
    assert torch.equal(unmixed_labels, labels)
