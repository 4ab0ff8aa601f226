"""One synthetic frontal chest radiograph: a chest is laid on the film, exposed and developed.

The picture is a sum of X-ray densities (0 is air, about 1 the abdomen), as overlapping tissues are in a real one; the
film's curve comes last.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cxr.core.labels import FINDINGS
from tools.phantom.anatomy import patient_chest, projected
from tools.phantom.canvas import Canvas, Plane, Position, sigmoid
from tools.phantom.exam import ANATOMY, EXPOSURE, LESION, Exam
from tools.phantom.signs import RESHAPES, SIGNS
from tools.phantom.tissues import normal_chest

Box = tuple[float, float, float, float]

NIH_SIDE = 1024  # pixels: the frame in which NIH gives its boxes


@dataclass(frozen=True)
class Exposure:
    """How one image was exposed and developed."""

    gain: float  # slope of the film's curve
    level: float  # density that comes out as middle grey
    noise: float  # standard deviation, in densities, where all photons pass
    blur: float  # standard deviation, in sides of the image


def draw(exam: Exam, size: int) -> tuple[NDArray[np.uint8], dict[str, Box]]:
    """The image of `exam`, uint8 of shape (size, size), and the box of each of its findings.

    Where a finding lies is the patient's, and the same in all images; how strong it is, is the image's. What is drawn
    from `random` must not depend on `size`, up to the film's noise: that comes last.
    """
    random = exam.random(EXPOSURE, exam.number)
    chest = projected(patient_chest(exam), exam.view, random)
    position, exposure = positioned(exam.view, random), exposed(exam.view, random)
    for finding, strength in exam.strengths.items():
        if finding in RESHAPES:
            chest = RESHAPES[finding](chest, _lesion(exam, finding), strength)
    canvas = Canvas(chest, position, size, exam.random(ANATOMY, 1))
    density = normal_chest(canvas, random) + devices(canvas, exam.view, random)
    boxes: dict[str, Box] = {}
    for finding, strength in exam.strengths.items():
        sign = strength * SIGNS[finding](canvas, _lesion(exam, finding))
        density, boxes[finding] = density + sign, box(sign)
    density += 0.8 * lettering(size, exam.view, random)
    return developed(density, exposure, random), boxes


def _lesion(exam: Exam, finding: str) -> Generator:
    """Random numbers of a patient's finding, from their start: its reshaping and its sign draw the same ones."""
    return exam.random(LESION, FINDINGS.index(finding))


def positioned(view: str, random: Generator) -> Position:
    """The patient before the film; an AP image, taken at the bedside, is the less straight."""
    return Position(
        tilt=random.normal(0.0, 0.035 if view == "AP" else 0.015),
        shift=(random.normal(0.0, 0.015), random.normal(0.01, 0.012)),
        zoom=random.normal(1.0, 0.025),
    )


def exposed(view: str, random: Generator) -> Exposure:
    """The exposure; an AP image, taken with a weaker machine, is the flatter and the noisier."""
    supine = view == "AP"
    return Exposure(
        gain=random.normal(4.0 if supine else 4.6, 0.3),
        level=random.normal(0.60, 0.035),
        noise=random.uniform(0.0009, 0.0014) if supine else random.uniform(0.0005, 0.001),
        blur=random.uniform(0.002, 0.005),
    )


def devices(canvas: Canvas, view: str, random: Generator) -> Plane:
    """Density of electrodes and a central line, commoner at the bedside, and of a pacemaker.

    Float64 of the canvas's shape. They depend on the view, never on the findings; but the ill have more AP images.
    """
    density = np.zeros_like(canvas.down)
    often = 0.3 if view == "AP" else 0.06
    if random.random() < often:
        for across, down in random.uniform((-0.3, 0.2), (0.3, 0.8), (3, 2)):
            density += 0.3 * canvas.inside(canvas.ellipse(across, down, 0.012, 0.012))
            wire = canvas.across - across - 0.06 * np.sin(6 * (canvas.down - down))
            density += 0.1 * canvas.line(wire, 0.002) * canvas.inside(canvas.down - down)
    if random.random() < often:
        catheter = canvas.across + 0.05 - 0.9 * np.maximum(canvas.chest.apex + 0.06 - canvas.down, 0)
        density += 0.2 * canvas.line(catheter, 0.003) * canvas.inside(canvas.hilum - canvas.down)
    if canvas.chest.pacemaker:
        density += 0.8 * canvas.inside(canvas.ellipse(0.23, canvas.chest.apex + 0.13, 0.045, 0.035))
    return density


def lettering(size: int, view: str, random: Generator) -> Plane:
    """Mask of the lead letters that mark the side or the projection, float64 in 0..1 of shape (size, size)."""
    sheet = Image.new("L", (4 * size, 4 * size))  # four times too large, so that small letters keep smooth borders
    if random.random() < 0.8:
        text, place = ("AP", (0.06, 0.04)) if view == "AP" and random.random() < 0.5 else ("L", (0.88, 0.05))
        corner = (4 * size * (place[0] + random.uniform(0, 0.03)), 4 * size * (place[1] + random.uniform(0, 0.06)))
        ImageDraw.Draw(sheet).text(corner, text, fill=255, font=ImageFont.load_default(size=0.2 * size))
    return np.asarray(sheet.reduce(4), dtype=np.float64) / 255


def developed(density: Plane, exposure: Exposure, random: Generator) -> NDArray[np.uint8]:
    """The film: blur, noise that grows where few photons pass, and the S-shaped curve; uint8 of the same shape."""
    density = ndimage.gaussian_filter(density, exposure.blur * len(density))
    noise = exposure.noise * np.exp(1.1 * np.clip(density, 0, 1.2)) * random.standard_normal(density.shape)
    return np.round(255 * sigmoid(exposure.gain * (density + noise - exposure.level))).astype(np.uint8)


def box(sign: Plane) -> Box:
    """x, y, width and height, in pixels of NIH's 1024 x 1024 frame, around the largest part of a sign's density.

    A part is where the sign has over 0.4 of its peak, added or taken away; beyond that a haze is hard to see.
    """
    regions, _ = ndimage.label(np.abs(sign) > 0.4 * np.abs(sign).max())
    largest = int(np.bincount(regions.flat)[1:].argmax())
    rows, columns = ndimage.find_objects(regions)[largest]
    scale = NIH_SIDE / len(sign)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return columns.start * scale, rows.start * scale, width * scale, height * scale
