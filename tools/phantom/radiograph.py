"""Rendering of one synthetic frontal chest radiograph.

As in a projection radiograph, the X-ray densities of overlapping tissues add up (0 is air, the abdomen is about 1). The
characteristic curve of the detector is applied last.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cxr.core.labels import FINDINGS
from tools.phantom.anatomy import patient_chest, project
from tools.phantom.canvas import Canvas, Plane, Position, sigmoid
from tools.phantom.exam import ANATOMY, EXPOSURE, LESION, Exam
from tools.phantom.signs import DEFORMATIONS, SIGNS
from tools.phantom.tissues import normal_chest

Box = tuple[float, float, float, float]

NIH_SIDE = 1024  # pixels; NIH's boxes refer to images of this size


@dataclass(frozen=True)
class Exposure:
    """Exposure and detector parameters of one image."""

    gain: float  # slope of the characteristic curve
    level: float  # density that becomes medium gray
    noise: float  # standard deviation, as a density, where all photons pass
    blur: float  # standard deviation, as a fraction of the side


def render(exam: Exam, size: int) -> tuple[NDArray[np.uint8], dict[str, Box]]:
    """Return the image of `exam`, uint8 [size, size], and the box of each of its findings.

    The location of a finding is the same in all images of a patient; its strength varies. The random numbers must not
    depend on `size`, except those of the noise, which come last.
    """
    random = exam.random(EXPOSURE, exam.number)
    chest = project(patient_chest(exam), exam.view, random)
    position, exposure = random_position(exam.view, random), random_exposure(exam.view, random)
    for finding, strength in exam.strengths.items():
        if finding in DEFORMATIONS:
            chest = DEFORMATIONS[finding](chest, _lesion_random(exam, finding), strength)
    canvas = Canvas(chest, position, size, exam.random(ANATOMY, 1))
    density = normal_chest(canvas, random) + devices(canvas, exam.view, random)
    boxes: dict[str, Box] = {}
    for finding, strength in exam.strengths.items():
        sign = strength * SIGNS[finding](canvas, _lesion_random(exam, finding))
        density, boxes[finding] = density + sign, bounding_box(sign)
    density += 0.8 * letter_mask(size, exam.view, random)
    return apply_exposure(density, exposure, random), boxes


def _lesion_random(exam: Exam, finding: str) -> Generator:
    """Return a new generator for a finding of a patient: its deformation and its sign use the same numbers."""
    return exam.random(LESION, FINDINGS.index(finding))


def random_position(view: str, random: Generator) -> Position:
    """Return a random position of the patient, more tilted in AP images, which are taken at the bedside."""
    return Position(
        tilt=random.normal(0.0, 0.035 if view == "AP" else 0.015),
        shift=(random.normal(0.0, 0.015), random.normal(0.01, 0.012)),
        zoom=random.normal(1.0, 0.025),
    )


def random_exposure(view: str, random: Generator) -> Exposure:
    """Return random exposure parameters; AP images, from mobile units, have less contrast and more noise."""
    supine = view == "AP"
    return Exposure(
        gain=random.normal(4.0 if supine else 4.6, 0.3),
        level=random.normal(0.60, 0.035),
        noise=random.uniform(0.0009, 0.0014) if supine else random.uniform(0.0005, 0.001),
        blur=random.uniform(0.002, 0.005),
    )


def devices(canvas: Canvas, view: str, random: Generator) -> Plane:
    """Return the density of electrodes and a central line, more common in AP images, and of a pacemaker.

    They depend on the view position but not on the findings. Ill patients have more AP images, however.
    """
    density = np.zeros_like(canvas.down)
    probability = 0.3 if view == "AP" else 0.06
    if random.random() < probability:
        for across, down in random.uniform((-0.3, 0.2), (0.3, 0.8), (3, 2)):
            density += 0.3 * canvas.inside(canvas.ellipse(across, down, 0.012, 0.012))
            wire = canvas.across - across - 0.06 * np.sin(6 * (canvas.down - down))
            density += 0.1 * canvas.line(wire, 0.002) * canvas.inside(canvas.down - down)
    if random.random() < probability:
        catheter = canvas.across + 0.05 - 0.9 * np.maximum(canvas.chest.apex + 0.06 - canvas.down, 0)
        density += 0.2 * canvas.line(catheter, 0.003) * canvas.inside(canvas.hilum - canvas.down)
    if canvas.chest.pacemaker:
        density += 0.8 * canvas.inside(canvas.ellipse(0.23, canvas.chest.apex + 0.13, 0.045, 0.035))
    return density


def letter_mask(size: int, view: str, random: Generator) -> Plane:
    """Return the mask of the lead letters that mark the side or the projection, in [0, 1]."""
    enlarged = Image.new("L", (4 * size, 4 * size))  # reduced below, for smooth borders
    if random.random() < 0.8:
        text, position = ("AP", (0.06, 0.04)) if view == "AP" and random.random() < 0.5 else ("L", (0.88, 0.05))
        corner = (
            4 * size * (position[0] + random.uniform(0, 0.03)),
            4 * size * (position[1] + random.uniform(0, 0.06)),
        )
        ImageDraw.Draw(enlarged).text(corner, text, fill=255, font=ImageFont.load_default(size=0.2 * size))
    return np.asarray(enlarged.reduce(4), dtype=np.float64) / 255


def apply_exposure(density: Plane, exposure: Exposure, random: Generator) -> NDArray[np.uint8]:
    """Apply blur, noise that increases with the density, and the S-shaped characteristic curve; uint8 [size, size]."""
    density = ndimage.gaussian_filter(density, exposure.blur * len(density))
    noise = exposure.noise * np.exp(1.1 * np.clip(density, 0, 1.2)) * random.standard_normal(density.shape)
    return np.round(255 * sigmoid(exposure.gain * (density + noise - exposure.level))).astype(np.uint8)


def bounding_box(sign: Plane) -> Box:
    """Return x, y, width and height of the largest region of a sign, in pixels of a 1024 x 1024 image.

    A region is where the absolute density exceeds 0.4 of its maximum; weaker haze is hard to see.
    """
    regions, _ = ndimage.label(np.abs(sign) > 0.4 * np.abs(sign).max())
    largest = int(np.bincount(regions.flat)[1:].argmax())
    rows, columns = ndimage.find_objects(regions)[largest]
    scale = NIH_SIDE / len(sign)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return columns.start * scale, rows.start * scale, width * scale, height * scale
