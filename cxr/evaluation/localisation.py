"""Whether class maps lie on the boxes that radiologists drew, beside maps that have not seen the image.

Three measures, each from 0 to 1, of one map and one box (several boxes of a class on one image are scored each by
itself; NIH's list has none):

- iou_0.1 to iou_0.7: whether the map's region and the box have an intersection over union of that or more. The region
  is the rectangle around all that is connected to the map's maximum and at least `PEAK_SHARE` of it.
- pointing_game: whether the maximum is inside the box (Zhang et al., Top-down Neural Attention by Excitation Backprop,
  ECCV 2016, but without their tolerance). Where several pixels have it, as at the edge of an enlarged map, the share of
  them that is inside: what choosing one by lot would score on average.
- energy: the share of the map's sum that is inside the box (Wang et al., Score-CAM, CVPR Workshops 2020).

A map of zeros points nowhere: it scores 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cxr.core.progress import progress
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, Floats, average, concatenate
from cxr.evaluation.summary import Report, nan_to_none
from cxr.inference.saliency import upsample

# The width at half maximum, as one measures any peak; not chosen by what it scores.
PEAK_SHARE = 0.5
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MEASURES = (*(f"iou_{iou}" for iou in IOUS), "pointing_game", "energy")
CENTRE_SPREAD = 0.25  # standard deviation of the centre map, share of the side
Map = NDArray[Any]


class Rectangle(NamedTuple):
    """Upper left corner and size, in shares of the image's side."""

    x: float
    y: float
    width: float
    height: float


def scores(maps: Iterable[Map], boxes: pd.DataFrame) -> Floats:
    """Every measure of each map on its box, float64 [boxes, measures], in the order of `MEASURES`.

    Args:
        maps: of each box's image and class, [side, side], 0 or more; used one at a time.
        boxes: with x, y, width and height as `cxr.datasets.boxes.read_boxes` returns them.
    """
    rectangles = (Rectangle(*row) for row in boxes[list(Rectangle._fields)].to_numpy(np.float64))
    pairs = progress(zip(maps, rectangles, strict=True), "map boxes", len(boxes), "boxes")
    rows = [score(map_, box) for map_, box in pairs]
    return np.array(rows, np.float64).reshape(len(boxes), len(MEASURES))


def score(map_: Map, box: Rectangle) -> list[float]:
    """Every measure of one map on one box."""
    if not map_.any():
        return [0.0] * len(MEASURES)
    overlap = intersection_over_union(region(map_), box)
    return [*(float(overlap >= iou) for iou in IOUS), maximum_inside(map_, box), energy_inside(map_, box)]


def region(map_: Map) -> Rectangle:
    """The rectangle around what is connected (by sides) to the maximum and at least `PEAK_SHARE` of it.

    Of several maxima the first in reading order counts.
    """
    parts, _ = ndimage.label(map_ >= PEAK_SHARE * map_.max())
    rows, columns = ndimage.find_objects(parts)[parts.flat[map_.argmax()] - 1]
    height, width = map_.shape
    return Rectangle(
        columns.start / width,
        rows.start / height,
        (columns.stop - columns.start) / width,
        (rows.stop - rows.start) / height,
    )


def intersection_over_union(first: Rectangle, second: Rectangle) -> float:
    """The area that both cover, as a share of the area that either covers."""
    across = _overlap(first.x, first.width, second.x, second.width)
    down = _overlap(first.y, first.height, second.y, second.height)
    both = float(across * down)
    return both / (first.width * first.height + second.width * second.height - both)


def maximum_inside(map_: Map, box: Rectangle) -> float:
    """The share of the pixels with the map's maximum whose centres are inside the box: 0 or 1, where one has it."""
    rows, columns = np.nonzero(map_ == map_.max())
    down, across = (rows + 0.5) / map_.shape[0] - box.y, (columns + 0.5) / map_.shape[1] - box.x
    inside = (across >= 0) & (across <= box.width) & (down >= 0) & (down <= box.height)
    return float(inside.mean())


def energy_inside(map_: Map, box: Rectangle) -> float:
    """The share of the map's sum that is inside the box; a pixel on its edge counts by the part that is inside."""
    height, width = map_.shape
    down = _overlap(np.arange(height) / height, 1 / height, box.y, box.height) * height
    across = _overlap(np.arange(width) / width, 1 / width, box.x, box.width) * width
    weights = map_.astype(np.float64)
    return float(down @ weights @ across / weights.sum())


def random_maps(boxes: pd.DataFrame, side: int, grid: int) -> Iterator[Map]:
    """A control: for each box noise of `grid` x `grid` places, enlarged as a network's map is, float64 [side, side].

    The noise is a function of the image's name and the class.
    """
    for image, name in zip(boxes["image"], boxes["class"], strict=True):
        noise = np.random.default_rng(crc32(f"{image} {name}".encode())).random((1, grid, grid))
        yield upsample(torch.from_numpy(noise), side)[0].numpy()


def centre_maps(boxes: pd.DataFrame, side: int) -> Iterator[Map]:
    """A control: for each box the same Gaussian in the middle of the image, float64 [side, side]."""
    profile = np.exp(-((((np.arange(side) + 0.5) / side - 0.5) / CENTRE_SPREAD) ** 2) / 2)
    for _ in range(len(boxes)):
        yield np.outer(profile, profile)


def report(scored: Mapping[str, Floats], boxes: pd.DataFrame, resamples: BootstrapSamples) -> Report:
    """What the boxes say of each kind of map: value, low and high (95 %) of every measure, and the counts behind them.

    Args:
        scored: what `scores` gave for each kind of map, the controls among them, by its name.
        boxes: with image, class and patient.
        resamples: of the boxes' images, one a box (`Resamples.of` the boxes' rows).

    Returns:
        As JSON has it: of all boxes, of the mean over the classes that have boxes, and of each of those, every measure
        of every kind of map; no measures where there are no boxes.
    """
    classes = sorted(set(boxes["class"]))
    entries: Report = {"all": counts(boxes), "mean": {"classes": len(classes)}}
    entries |= {name: counts(boxes[boxes["class"] == name]) for name in classes}
    for column, measure in enumerate(MEASURES if classes else ()):
        for kind, values in scored.items():
            found = _measured(values[:, column], boxes["class"].to_numpy(), classes, resamples)
            for entry, value, (low, high) in zip(entries.values(), found.value, found.interval(), strict=True):
                bounds = {"value": nan_to_none(value), "low": nan_to_none(low), "high": nan_to_none(high)}
                entry.setdefault(measure, {})[kind] = bounds
    return {"peak_share": PEAK_SHARE, "resamples": len(resamples.counts) - 1, "boxes": entries}


def counts(boxes: pd.DataFrame) -> dict[str, int]:
    """How many boxes there are, on how many images, of how many patients."""
    return {"boxes": len(boxes), "images": boxes["image"].nunique(), "patients": boxes["patient"].nunique()}


def _measured(
    values: Floats, of_class: NDArray[Any], classes: list[str], resamples: BootstrapSamples
) -> BootstrapDistribution:
    """The average of a measure over all boxes, then the mean over the classes, then that of each class."""
    among = of_class[:, None] == np.array(classes)
    of_all = average(values[:, None], np.ones((len(values), 1), bool), resamples)
    of_classes = average(values[:, None], among, resamples)
    return concatenate(of_all, of_classes.mean(range(len(classes))), of_classes)


def _overlap(first: Any, length: float, second: float, other_length: float) -> Any:
    """How much of two stretches, each from a start on, is the same; an array where the first starts are one."""
    ends = np.minimum(first + length, second + other_length)
    return np.maximum(ends - np.maximum(first, second), 0)
