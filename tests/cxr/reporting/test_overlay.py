import numpy as np

from cxr.reporting.overlay import overlay

GRAY = np.full((120, 240), 100, np.uint8)


def test_an_overlay_is_orange_at_the_maximum_and_gray_elsewhere_with_a_contour_between() -> None:
    saliency = np.zeros((32, 32))
    saliency[8:24, 8:24] = 3.0
    shown = overlay(GRAY, saliency).astype(int)
    assert shown.shape == (120, 240, 3)
    assert (shown[2, 2] == 100).all()
    red, green, blue = shown[60, 120]
    assert red > green > blue
    colours = {tuple(pixel) for pixel in shown[60]}
    assert {(0, 0, 0), (255, 255, 255)} <= colours


def test_a_map_of_zeros_leaves_the_image_unchanged() -> None:
    assert np.array_equal(overlay(GRAY, np.zeros((4, 4))), np.repeat(GRAY[..., None], 3, axis=2))
