from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cxr.datasets.boxes import read_boxes
from cxr.evaluation import localisation
from cxr.evaluation.bootstrap import BootstrapSamples, bootstrap_patients
from cxr.evaluation.localisation import IOUS, METRIC_NAMES, Map, Rectangle
from cxr.evaluation.schema import BoxScores, Interval
from cxr.inference.saliency import upsample

SIDE = 24
few = settings(deadline=None, max_examples=50)


@st.composite
def pixel_boxes(draw: st.DrawFn) -> tuple[slice, slice]:
    """Rows and columns of a box whose edges are those of pixels."""
    edges = [sorted(draw(st.lists(st.integers(0, SIDE), min_size=2, max_size=2, unique=True))) for _ in range(2)]
    return slice(*edges[0]), slice(*edges[1])


def as_rectangle(rows: slice, columns: slice) -> Rectangle:
    x, y = columns.start / SIDE, rows.start / SIDE
    return Rectangle(x, y, columns.stop / SIDE - x, rows.stop / SIDE - y)


def mask_of(box: tuple[slice, slice]) -> Map:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[box] = True
    return mask


def blotches(seed: int) -> Map:
    """A smooth map with a few hills."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((SIDE, SIDE)), 2)
    return np.maximum(noise - noise.mean(), 0)


@few
@given(pixel_boxes(), pixel_boxes())
def test_intersection_over_union_counts_pixels(first: tuple[slice, slice], second: tuple[slice, slice]) -> None:
    one, other = mask_of(first), mask_of(second)
    found = localisation.intersection_over_union(as_rectangle(*first), as_rectangle(*second))
    assert found == pytest.approx((one & other).sum() / (one | other).sum())


@few
@given(pixel_boxes(), st.integers(0, 10_000))
def test_energy_counts_pixels(box: tuple[slice, slice], seed: int) -> None:
    map_ = blotches(seed)
    found = localisation.energy_inside(map_, as_rectangle(*box))
    assert found == pytest.approx(map_[mask_of(box)].sum() / map_.sum())


def test_a_pixel_on_the_edge_counts_by_its_part_inside() -> None:
    box = Rectangle(0.25, 0.25, 0.5, 0.5)
    assert localisation.energy_inside(np.ones((2, 2)), box) == pytest.approx(0.25)
    assert localisation.energy_inside(np.ones((3, 3)), box) == pytest.approx(0.25)


def spread_from_the_maximum(map_: Map) -> set[tuple[int, int]]:
    """Return the pixels at half the maximum or more that are connected to it."""
    start = divmod(int(map_.argmax()), SIDE)
    reached, edge = {start}, [start]
    while edge:
        row, column = edge.pop()
        for pixel in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= pixel[0] < SIDE and 0 <= pixel[1] < SIDE
            if inside and pixel not in reached and map_[pixel] >= map_.max() / 2:
                reached.add(pixel)
                edge.append(pixel)
    return reached


@few
@given(st.integers(0, 10_000))
def test_the_region_is_around_what_can_be_reached_from_the_maximum(seed: int) -> None:
    rows, columns = zip(*spread_from_the_maximum(map_ := blotches(seed)), strict=True)
    expected = as_rectangle(slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1))
    assert localisation.region(map_) == pytest.approx(expected)


@few
@given(pixel_boxes(), st.integers(0, 10_000))
def test_the_pointing_game_asks_where_the_maximum_is(box: tuple[slice, slice], seed: int) -> None:
    map_ = blotches(seed)
    assert localisation.maximum_inside(map_, as_rectangle(*box)) == mask_of(box).flat[map_.argmax()]


def test_of_several_maxima_the_share_inside_counts() -> None:
    map_ = np.zeros((SIDE, SIDE))
    map_[2, 3] = map_[10, 11] = 1
    assert localisation.maximum_inside(map_, as_rectangle(slice(0, 5), slice(0, 5))) == 0.5
    assert localisation.maximum_inside(map_, as_rectangle(slice(2, 11), slice(3, 12))) == 1
    assert localisation.maximum_inside(np.ones((SIDE, SIDE)), Rectangle(0.25, 0.5, 0.5, 0.25)) == 0.125
    assert localisation.region(map_) == pytest.approx(as_rectangle(slice(2, 3), slice(3, 4)))


def named(*boxes: Rectangle) -> pd.DataFrame:
    """A table of boxes of two classes in turn, an image each and two images a patient."""
    numbers = range(len(boxes))
    table = pd.DataFrame(boxes, columns=list(Rectangle._fields))
    return table.assign(
        image=[f"{number}.png" for number in numbers],
        patient=[number // 2 for number in numbers],
        **{"class": [("Mass", "Nodule")[number % 2] for number in numbers]},
    )


@few
@given(pixel_boxes())
def test_a_map_of_the_box_itself_scores_1_and_a_map_of_zeros_0(box: tuple[slice, slice]) -> None:
    boxes = named(as_rectangle(*box), as_rectangle(*box))
    found = localisation.box_scores([mask_of(box).astype(np.float32), np.zeros((SIDE, SIDE), np.float32)], boxes)
    np.testing.assert_allclose(found, [[1.0] * len(METRIC_NAMES), [0.0] * len(METRIC_NAMES)], atol=1e-12)


def random_boxes(count: int, seed: int) -> pd.DataFrame:
    """Boxes of all sizes anywhere, their edges not those of pixels."""
    random = np.random.default_rng(seed)
    sizes = random.uniform(0.1, 0.6, (count, 2))
    corners = random.random((count, 2)) * (1 - sizes)
    return named(*(Rectangle(*corner, *size) for corner, size in zip(corners, sizes, strict=True)))


def test_the_maximum_of_a_random_map_is_at_each_pixel_with_the_same_probability() -> None:
    """Counted by border and interior: noise with repeated edge pixels would have half of its maxima at the border."""
    boxes = random_boxes(2000, 2)
    at = np.array([map_.argmax() for map_ in localisation.random_maps(boxes, SIDE, 6)])
    rows, columns = np.divmod(at, SIDE)
    for position in (rows, columns):
        counts = np.bincount(position, minlength=SIDE)
        # The 99.99 % point of chi-squared with 23 degrees of freedom is 56.
        assert (((counts - counts.mean()) ** 2) / counts.mean()).sum() < 56
    border = (rows % (SIDE - 1) == 0) | (columns % (SIDE - 1) == 0)
    expected = 1 - ((SIDE - 2) / SIDE) ** 2
    assert border.mean() == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5)


def test_noise_is_enlarged_as_a_saliency_map_is_away_from_the_edges() -> None:
    boxes = random_boxes(1, 3)
    (found,) = localisation.random_maps(boxes, SIDE, 6)
    random = np.random.default_rng(crc32(f"{boxes['image'][0]} {boxes['class'][0]} 0".encode()))
    noise = torch.from_numpy(random.random((1, 6, 6)))
    down, across = random.integers(SIDE, size=2)
    inner = slice(2, SIDE - 2)
    expected = upsample(noise, SIDE)[0].numpy()
    np.testing.assert_allclose(np.roll(found, (-down, -across), (0, 1))[inner, inner], expected[inner, inner])


def test_random_scores_come_to_the_area_of_the_boxes() -> None:
    boxes = random_boxes(40, 1)
    found = localisation.random_scores(boxes, SIDE, 6)
    areas = (boxes["width"] * boxes["height"]).to_numpy()
    for metric in ("energy", "pointing_game"):
        errors = found[:, METRIC_NAMES.index(metric)] - areas
        assert abs(errors.mean()) < 4 * errors.std() / len(errors) ** 0.5
    draws = [
        localisation.box_scores(localisation.random_maps(boxes, SIDE, 6, draw), boxes)
        for draw in range(localisation.RANDOM_DRAWS)
    ]
    np.testing.assert_allclose(found, np.mean(draws, axis=0))
    assert localisation.summarize({}, boxes, samples_of(boxes)).all.chance == pytest.approx(areas.mean())


@few
@given(st.lists(pixel_boxes(), min_size=2, max_size=8))
def test_the_prior_is_the_mean_of_the_other_patients_boxes(drawn: list[tuple[slice, slice]]) -> None:
    boxes = named(*(as_rectangle(*box) for box in drawn))
    for row, prior in enumerate(localisation.prior_maps(boxes, SIDE)):
        is_other = (boxes["class"] == boxes["class"][row]) & (boxes["patient"] != boxes["patient"][row])
        others = [mask_of(drawn[other]) for other in np.flatnonzero(is_other)]
        np.testing.assert_allclose(prior, np.mean(others, axis=0) if others else np.zeros((SIDE, SIDE)), atol=1e-12)


def test_controls_know_the_name_of_the_image_and_nothing_else() -> None:
    boxes = random_boxes(6, 3)
    first = np.stack(list(localisation.random_maps(boxes, SIDE, 4)))
    again = np.stack(list(localisation.random_maps(boxes[::-1].assign(x=0.0, patient=9), SIDE, 4)))[::-1]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, np.stack(list(localisation.random_maps(boxes, SIDE, 4, draw=1))))
    assert len(np.unique(first.reshape(6, -1), axis=0)) == 6
    centre = np.stack(list(localisation.centre_maps(boxes, SIDE)))
    assert (centre == centre[0]).all()
    np.testing.assert_allclose(centre[0], centre[0].T)
    np.testing.assert_allclose(centre[0], np.rot90(centre[0]))
    assert localisation.region(centre[0]) == pytest.approx(as_rectangle(slice(5, 19), slice(5, 19)))


def samples_of(boxes: pd.DataFrame) -> BootstrapSamples:
    return bootstrap_patients(boxes["patient"], 200, seed=1)


def test_the_report_averages_over_all_boxes_over_classes_and_within_each() -> None:
    boxes = random_boxes(41, 4)
    boxes.loc[:9, "class"] = "Cardiomegaly"
    values = np.random.default_rng(5).random((41, len(METRIC_NAMES)))
    values[:, : len(IOUS)] = values[:, : len(IOUS)] > 0.4
    report = localisation.summarize({"ours": values, "zeros": 0 * values}, boxes, samples_of(boxes))
    table = pd.DataFrame(values, columns=list(METRIC_NAMES))
    by_class = table.groupby(boxes["class"]).mean()
    for measure in METRIC_NAMES:
        of_all, of_mean = report.all.scores[measure]["ours"], report.mean.scores[measure]["ours"]
        of_classes = {name: entry.scores[measure]["ours"] for name, entry in report.classes.items()}
        assert of_all.value == pytest.approx(table[measure].mean())
        assert of_mean.value == pytest.approx(by_class[measure].mean())
        for name, value in by_class[measure].items():
            assert of_classes[str(name)].value == pytest.approx(value)
        for entry in (of_all, of_mean, *of_classes.values()):
            assert entry.low is not None
            assert entry.value is not None
            assert entry.high is not None
            assert entry.low < entry.value < entry.high
    assert report.all.scores["iou_0.1"]["zeros"] == Interval(value=0, low=None, high=None)
    assert list(report.classes) == ["Cardiomegaly", "Mass", "Nodule"]
    heart = report.classes["Cardiomegaly"]
    assert (heart.boxes, heart.images, heart.patients) == (10, 10, 5)


def test_intervals_draw_patients_and_not_boxes() -> None:
    """Forty boxes of four patients that agree within each say no more than four boxes."""
    boxes = random_boxes(40, 6).assign(patient=np.arange(40) // 10)
    values = np.repeat([[0.2], [0.4], [0.6], [0.7]], 10, axis=0) * np.ones(len(METRIC_NAMES))
    few_boxes = boxes[::10]
    of_all, of_few = (
        localisation.summarize({"ours": some}, table, samples_of(table)).all.scores["energy"]["ours"]
        for some, table in ((values, boxes), (values[::10], few_boxes))
    )
    assert of_all.model_dump() == pytest.approx(of_few.model_dump())


def test_without_boxes_there_are_counts_and_no_measures() -> None:
    boxes = random_boxes(4, 7)
    none = boxes[:0]
    found = localisation.box_scores(iter(()), none)
    report = localisation.summarize({"ours": found}, none, samples_of(boxes).subset(np.zeros(4, bool)))
    assert report.all == BoxScores(boxes=0, images=0, patients=0, chance=None, scores={})
    assert (report.mean.classes, report.mean.chance, report.mean.scores, report.classes) == (0, None, {}, {})


@pytest.mark.real_data
def test_controls_on_the_real_boxes_are_those_of_an_independent_computation(shared: Path) -> None:
    """An audit of this project computed the prior with other code: 0.48, 0.29, 0.15, and 0.38 in the pointing game."""
    boxes = read_boxes(shared / "nih-metadata").assign(patient=lambda table: table["image"].str[:8])
    found = {
        "random": localisation.box_scores(localisation.random_maps(boxes, 64, 7), boxes),
        "centre": localisation.box_scores(localisation.centre_maps(boxes, 64), boxes),
        "prior": localisation.box_scores(localisation.prior_maps(boxes, 64), boxes),
    }
    report: Any = localisation.summarize(found, boxes, samples_of(boxes))
    assert report.all.boxes == 984
    assert report.mean.chance == pytest.approx(0.0709, abs=1e-4)
    assert report.mean.scores["pointing_game"]["random"].value == pytest.approx(report.mean.chance, abs=0.03)
    for metric, expected in (("iou_0.1", 0.48), ("iou_0.3", 0.29), ("iou_0.5", 0.15), ("pointing_game", 0.38)):
        assert report.mean.scores[metric]["prior"].value == pytest.approx(expected, abs=0.025)
    heart = report.classes["Cardiomegaly"].scores["iou_0.1"]
    assert heart["centre"].value > max(0.8, heart["random"].value)
