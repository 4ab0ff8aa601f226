"""Scores of saliency maps on bounding boxes, compared with maps that do not depend on the image.

Three metrics from 0 to 1, each of one map and one box (several boxes of a class on one image are scored separately;
NIH's list has none):

- iou_0.1 to iou_0.7: 1 if the intersection over union of the map's region and the box is at least this. The region is
  the bounding rectangle of the pixels that are connected to the map's maximum and at least `PEAK_FRACTION` of it.
- pointing_game: 1 if the maximum is inside the box (Zhang et al., Top-down Neural Attention by Excitation Backprop,
  ECCV 2016, but without their tolerance). If several pixels have the maximum, as at the edge of an upsampled map, the
  fraction of them inside: the expected score of a random choice.
- energy: the fraction of the map's sum inside the box (Wang et al., Score-CAM, CVPR Workshops 2020).

A map of zeros scores 0. The expected pointing game and energy of a map that is independent of the box and uniform over
the image is the box's area.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cxr.core.errors import InputError, warn
from cxr.core.labels import CLASSES
from cxr.core.progress import progress
from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, Floats, average, concatenate
from cxr.evaluation.class_values import with_ci
from cxr.evaluation.schema import BoxScores, Localisation, LocalisationScores, MeanBoxScores, nan_to_none
from cxr.inference.ensemble import mean_saliency_maps
from cxr.inference.saliency import layer_cam_side, supported_methods
from cxr.models.classifier import Classifier
from cxr.models.image_store import ImageStore

PEAK_FRACTION = 0.5  # the full width at half maximum, as for any peak; not tuned
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
METRIC_NAMES = (*(f"iou_{iou}" for iou in IOUS), "pointing_game", "energy")
CENTRE_SIGMA = 0.25  # standard deviation of the centre map, fraction of the side
RANDOM_DRAWS = 20  # random maps of each box, whose scores are averaged
MAX_RANDOM_SIDE = 64  # pixels; larger random maps take longer to score, and their scores differ by less than 0.01
Map = NDArray[Any]


class Rectangle(NamedTuple):
    """Upper left corner and size, as fractions of the image's side."""

    x: float
    y: float
    width: float
    height: float


def box_scores(maps: Iterable[Map], boxes: pd.DataFrame) -> Floats:
    """Return every metric of each map on its box, float64 [boxes, metrics], in the order of `METRIC_NAMES`.

    Args:
        maps: of each box's image and class, [side, side], not negative; consumed one at a time.
        boxes: with x, y, width and height as `cxr.datasets.boxes.read_boxes` returns them.
    """
    rectangles = (Rectangle(*row) for row in boxes[list(Rectangle._fields)].to_numpy(np.float64))
    pairs = progress(zip(maps, rectangles, strict=True), "score boxes", len(boxes), "boxes")
    rows = [score(map_, box) for map_, box in pairs]
    return np.array(rows, np.float64).reshape(len(boxes), len(METRIC_NAMES))


def score(map_: Map, box: Rectangle) -> list[float]:
    """Return every metric of one map on one box."""
    if not map_.any():
        return [0.0] * len(METRIC_NAMES)
    overlap = intersection_over_union(region(map_), box)
    return [*(float(overlap >= iou) for iou in IOUS), maximum_inside(map_, box), energy_inside(map_, box)]


def region(map_: Map) -> Rectangle:
    """Return the bounding rectangle of the pixels connected to the maximum that are at least `PEAK_FRACTION` of it.

    Pixels are connected by their sides.
    If several pixels have the maximum, the first in reading order is used.
    """
    parts, _ = ndimage.label(map_ >= PEAK_FRACTION * map_.max())
    rows, columns = ndimage.find_objects(parts)[parts.flat[map_.argmax()] - 1]
    height, width = map_.shape
    return Rectangle(
        columns.start / width,
        rows.start / height,
        (columns.stop - columns.start) / width,
        (rows.stop - rows.start) / height,
    )


def intersection_over_union(first: Rectangle, second: Rectangle) -> float:
    """Return the area of the intersection as a fraction of the area of the union."""
    across = _overlap(first.x, first.width, second.x, second.width)
    down = _overlap(first.y, first.height, second.y, second.height)
    both = float(across * down)
    return both / (first.width * first.height + second.width * second.height - both)


def maximum_inside(map_: Map, box: Rectangle) -> float:
    """Return the fraction of the pixels with the map's maximum whose centres are inside the box."""
    rows, columns = np.nonzero(map_ == map_.max())
    down, across = (rows + 0.5) / map_.shape[0] - box.y, (columns + 0.5) / map_.shape[1] - box.x
    inside = (across >= 0) & (across <= box.width) & (down >= 0) & (down <= box.height)
    return float(inside.mean())


def energy_inside(map_: Map, box: Rectangle) -> float:
    """Return the fraction of the map's sum inside the box; a pixel on the edge is weighted by its area inside."""
    down, across = _coverage(box, len(map_))
    weights = map_.astype(np.float64)
    return float(down @ weights @ across / weights.sum())


def random_maps(boxes: pd.DataFrame, side: int, grid: int, draw: int = 0) -> Iterator[Map]:
    """Yield for each box noise of `grid` x `grid` pixels, enlarged bilinearly, float64 [side, side].

    A control. The noise is a function of the image's name, the class and `draw`. It is enlarged as a periodic image and
    shifted at random, so that its maximum is at each pixel with the same probability. Enlarged as a network's map is,
    with its edge pixels repeated, it would have its maximum at the border of the image in about half of the cases.
    """
    for image, name in zip(boxes["image"], boxes["class"], strict=True):
        random = np.random.default_rng(crc32(f"{image} {name} {draw}".encode()))
        noise = random.random((grid, grid))
        enlarged = ndimage.zoom(noise, side / grid, order=1, mode="grid-wrap", grid_mode=True)
        yield np.roll(enlarged, random.integers(side, size=2), axis=(0, 1))


def random_scores(boxes: pd.DataFrame, side: int, grid: int) -> Floats:
    """Return the mean of `box_scores` over `RANDOM_DRAWS` random maps of each box, float64 [boxes, metrics]."""
    side = min(side, MAX_RANDOM_SIDE)
    maps = chain.from_iterable(random_maps(boxes, side, min(grid, side), draw) for draw in range(RANDOM_DRAWS))
    scores = box_scores(maps, pd.concat([boxes] * RANDOM_DRAWS))
    return scores.reshape(RANDOM_DRAWS, len(boxes), len(METRIC_NAMES)).mean(axis=0)


def prior_maps(boxes: pd.DataFrame, side: int) -> Iterator[Map]:
    """Yield for each box the mean of the other patients' boxes of its class, float64 [side, side].

    A control: what is known of a finding's place without looking at the image. The map is zero if no other patient has
    a box of the class.

    Args:
        boxes: with class, patient, x, y, width and height.
        side: side of the maps, pixels.
    """
    covered = [_coverage(Rectangle(*row), side) for row in boxes[list(Rectangle._fields)].to_numpy(np.float64)]
    names, patients = boxes["class"].to_numpy(), boxes["patient"].to_numpy()
    of_class = {name: _sum_of(covered, names == name, side) for name in set(names)}
    for name, patient in zip(names, patients, strict=True):
        own = (names == name) & (patients == patient)
        others = np.count_nonzero(names == name) - np.count_nonzero(own)
        yield (of_class[name] - _sum_of(covered, own, side)).clip(0) / max(others, 1)


def centre_maps(boxes: pd.DataFrame, side: int) -> Iterator[Map]:
    """Yield for each box the same Gaussian at the centre of the image, float64 [side, side]. A control."""
    profile = np.exp(-((((np.arange(side) + 0.5) / side - 0.5) / CENTRE_SIGMA) ** 2) / 2)
    for _ in range(len(boxes)):
        yield np.outer(profile, profile)


def evaluate_localisation(
    classifiers: Sequence[Classifier],
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    boxes: pd.DataFrame,
    batch_size: int,
    samples: BootstrapSamples,
) -> Localisation:
    """Score the ensemble's saliency maps and the three controls on the bounding boxes of the test images.

    If a network has no saliency maps, warn and return the counts without scores.

    Args:
        classifiers: the networks of the ensemble.
        images: uint8 [all images, side, side].
        rows: rows of `images` of the test images.
        boxes: the result of `cxr.datasets.boxes.boxes_of_images` for the test images; may be empty.
        batch_size: images per batch.
        samples: bootstrap samples of the test images.
    """
    indices, side = boxes["row"].to_numpy(np.int64), images.shape[1]
    samples = samples.subset(indices)
    if boxes.empty:
        return summarize({}, boxes, samples)
    box_images = ImageStore(images, rows[indices], next(classifiers[0].parameters()).device)
    columns = boxes["class"].map(CLASSES.index).to_numpy()
    try:
        maps: dict[str, Iterator[Map]] = {
            name: mean_saliency_maps(method, classifiers, box_images, columns, batch_size)
            for name, method in supported_methods(classifiers).items()
        }
        scores = {name: box_scores(of_kind, boxes) for name, of_kind in maps.items()}
        scores["random"] = random_scores(boxes, side, layer_cam_side(classifiers[0], side))
        scores["centre"] = box_scores(centre_maps(boxes, side), boxes)
        scores["prior"] = box_scores(prior_maps(boxes, side), boxes)
    except InputError as error:
        warn(f"no localisation: {error}")
        scores = {}
    return summarize(scores, boxes, samples)


def summarize(scores: Mapping[str, Floats], boxes: pd.DataFrame, samples: BootstrapSamples) -> Localisation:
    """Average scores over all boxes, over the classes, and over the boxes of each class, with intervals.

    Args:
        scores: the result of `box_scores` for each kind of map, by its name.
        boxes: with image, class and patient.
        samples: bootstrap samples of the boxes' images, one image for each box.
    """
    classes = sorted(set(boxes["class"]))
    areas = (boxes["width"] * boxes["height"]).groupby(boxes["class"]).mean()
    scored: dict[str, LocalisationScores] = {name: {} for name in ("all", "mean", *classes)}
    for column, metric in enumerate(METRIC_NAMES if classes else ()):
        for kind, values in scores.items():
            distribution = _averages(values[:, column], boxes["class"].to_numpy(), classes, samples)
            for name, interval in with_ci(scored, distribution).items():
                scored[name].setdefault(metric, {})[kind] = interval
    return Localisation(
        peak_fraction=PEAK_FRACTION,
        bootstrap_samples=len(samples),
        all=_with_counts(boxes, scored["all"]),
        mean=MeanBoxScores(classes=len(classes), chance=nan_to_none(areas.mean()), scores=scored["mean"]),
        classes={name: _with_counts(boxes[boxes["class"] == name], scored[name]) for name in classes},
    )


def _with_counts(boxes: pd.DataFrame, scores: LocalisationScores) -> BoxScores:
    return BoxScores(
        boxes=len(boxes),
        images=boxes["image"].nunique(),
        patients=boxes["patient"].nunique(),
        chance=nan_to_none((boxes["width"] * boxes["height"]).mean()),
        scores=scores,
    )


def _averages(
    values: Floats, class_of_box: NDArray[Any], classes: list[str], samples: BootstrapSamples
) -> BootstrapDistribution:
    """Return the average over all boxes, then the mean over the classes, then the average of each class."""
    among = class_of_box[:, None] == np.array(classes)
    of_all = average(values[:, None], np.ones((len(values), 1), bool), samples)
    of_classes = average(values[:, None], among, samples)
    return concatenate(of_all, of_classes.mean(range(len(classes))), of_classes)


def _coverage(box: Rectangle, side: int) -> tuple[Floats, Floats]:
    """Return the fraction of each pixel row and of each pixel column inside `box`, each float64 [side]."""
    starts = np.arange(side) / side
    down = _overlap(starts, 1 / side, box.y, box.height) * side
    return down, _overlap(starts, 1 / side, box.x, box.width) * side


def _sum_of(covered: Sequence[tuple[Floats, Floats]], mask: NDArray[np.bool_], side: int) -> Floats:
    """Return the sum over the boxes in `mask` of the fraction of each pixel inside the box, float64 [side, side]."""
    total = np.zeros((side, side))
    for row in np.flatnonzero(mask).tolist():
        total += np.outer(*covered[row])
    return total


def _overlap(first: Any, length: float, second: float, other_length: float) -> Any:
    """Return the length of the overlap of two intervals, given by start and length; an array if `first` is one."""
    ends = np.minimum(first + length, second + other_length)
    return np.maximum(ends - np.maximum(first, second), 0)
