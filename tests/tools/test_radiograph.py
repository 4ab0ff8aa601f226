"""Synthetic radiographs: signs are inside their boxes, and the chest is the same at every size."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cxr.core.labels import FINDINGS
from tools.phantom.anatomy import patient_chest
from tools.phantom.canvas import Canvas, Position
from tools.phantom.dataset import phantom_exams
from tools.phantom.exam import Exam
from tools.phantom.radiograph import NIH_SIDE, bounding_box, render
from tools.phantom.signs import DEFORMATIONS, SIGNS


@pytest.mark.slow
@pytest.mark.parametrize("finding", FINDINGS)
def test_a_sign_changes_the_image_inside_its_box(finding: str) -> None:
    inside, outside = [], []
    for patient in range(1, 7):
        healthy = Exam(seed=1, patient=patient, number=0, age=50, sex="M", view="PA")
        ill, boxes = render(replace(healthy, strengths={finding: 1.0}), 128)
        change = np.abs(ill.astype(float) - render(healthy, 128)[0])
        x, y, width, height = (round(value * 128 / NIH_SIDE) for value in boxes[finding])
        within = np.zeros_like(change, dtype=bool)
        within[y : y + height, x : x + width] = True
        inside.append(change[within].mean())
        outside.append(change[~within].mean())
    assert np.mean(inside) > 4
    assert np.mean(inside) > 2 * np.mean(outside)


@pytest.mark.parametrize("size", [64, 256])
def test_every_size_shows_the_same_chest(size: int) -> None:
    exam = phantom_exams(1, 1)[0]
    reduced = [
        np.asarray(Image.fromarray(render(exam, side)[0]).resize((32, 32), Image.Resampling.BOX), float)
        for side in (128, size)
    ]
    assert np.abs(reduced[0] - reduced[1]).mean() < 6  # of 255; small images have blurrier edges


def test_every_finding_has_a_sign() -> None:
    assert tuple(SIGNS) == FINDINGS
    assert set(DEFORMATIONS) < set(SIGNS)


def test_the_box_surrounds_the_largest_region_in_nih_pixels() -> None:
    sign = np.zeros((64, 64))
    sign[8:24, 4:12] = -1.0  # a sign may subtract density
    sign[40:44, 40:44] = 2.0
    assert bounding_box(sign) == (4 * 16, 8 * 16, 8 * 16, 16 * 16)


@pytest.mark.parametrize("patient", range(1, 7))
def test_atelectasis_elevates_the_diaphragm_of_the_same_side(patient: int) -> None:
    exam = Exam(seed=1, patient=patient, number=0, age=50, sex="M", view="PA")
    seed = [1, patient]
    raised = DEFORMATIONS["Atelectasis"](patient_chest(exam), np.random.default_rng(seed), 1.0)
    canvas = Canvas(raised, Position(tilt=0.0, shift=(0.0, 0.0), zoom=1.0), 64, np.random.default_rng(0))
    bands = SIGNS["Atelectasis"](canvas, np.random.default_rng(seed))
    assert np.sign((bands * canvas.across).sum()) == np.sign(raised.raised)
