"""Pixel coordinates of one image relative to the chest, and the shapes that tissues and signs consist of.

The coordinates are `across` (0 at the midline, positive towards the patient's left, which is the image's right) and
`down` (0 at the top of the image). They and all lengths are fractions of the side, so the image size is irrelevant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from tools.phantom.anatomy import LEFT, RIGHT, Chest

Plane = NDArray[np.float64]  # one value per pixel, [size, size]


@dataclass(frozen=True)
class Position:
    """Position of the patient in one image."""

    tilt: float  # radians
    shift: tuple[float, float]  # to the image's right and downwards
    zoom: float


def sigmoid(value: Plane) -> Plane:
    """Return the logistic function of `value`, without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * value)


class Canvas:
    """Coordinates of the pixels of one image, and the shapes that tissues and signs have in common.

    Attributes:
        across, down: the coordinates of each pixel.
        air: 1 in the lungs, less behind the heart and the great vessels.
        markings: the density of the vessels.
        hilum: vertical position of the hila, from the top of the image.

    All methods except `spot` return a `Plane`.
    """

    def __init__(self, chest: Chest, position: Position, size: int, random: Generator) -> None:
        """Place `chest` on an image of `size` x `size` pixels; `random` is used for the vessels."""
        self.chest = chest
        self.edge = max(0.003, 0.45 / size)  # blur of borders: half a pixel, but at least the 1 mm of the radiograph
        row, column = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        column, row = (column - position.shift[0]) / position.zoom, (row - position.shift[1]) / position.zoom
        self.across: Plane = column * np.cos(position.tilt) + row * np.sin(position.tilt)
        self.down: Plane = row * np.cos(position.tilt) - column * np.sin(position.tilt) + 0.5
        self.hilum = chest.apex + 0.48 * (chest.dome - chest.apex)
        lungs = np.maximum(self.lung(RIGHT), self.lung(LEFT))
        # The lung in front of and behind the heart and the great vessels remains slightly visible.
        self.air: Plane = lungs * (1 - 0.85 * np.maximum(self.heart(), self.mediastinum()))
        self.markings = self.vessels(random)

    def lateral(self, side: int = 0) -> Plane:
        """Return the distance from the midline towards `side` (0: both sides), as a fraction of a lung's width."""
        distance: Plane = side * self.across if side else np.abs(self.across)
        return distance / self.chest.width

    def inside(self, distance: Plane) -> Plane:
        """Return 1 where `distance` to a border is positive and 0 where it is negative, with a smooth edge."""
        return sigmoid(distance / self.edge)

    def diaphragm(self, side: int) -> Plane:
        """Return the height of the hemidiaphragm of `side` for each pixel; its dome is at 0.4 of the lung's width."""
        chest = self.chest
        lateral = self.lateral(side) - 0.4
        curve = np.where(lateral > 0, (lateral / 0.6) ** 2, 0.3 * (lateral / 0.4) ** 2)
        top = chest.dome + (chest.dome_step if side == LEFT else 0.0) - max(0.0, side * chest.raised)
        return top + chest.angle_depth * np.minimum(curve, 1.5)

    def lung(self, side: int, inset: float = 0.0, drop: float = 0.0) -> Plane:
        """Return the mask of the lung of `side`, its lateral wall moved in by `inset` and its apex down by `drop`."""
        chest = self.chest
        width, apex = chest.width - inset, chest.apex + drop
        base = chest.dome + chest.angle_depth
        rise = np.clip((base - self.down) / (base - apex), 0, None)
        middle = width * (0.5 - 0.07 * rise)
        wall = 1 - rise**2.6 - np.abs((side * self.across - middle) / (width / 2 + 0.01)) ** 2.8
        return self.inside(0.25 * width * wall) * self.inside(self.diaphragm(side) - self.down)

    def heart(self) -> Plane:
        """Return the mask of the heart: a tilted ellipse on the diaphragm, a third of it right of the midline.

        Its border is blurred by motion during the exposure.
        """
        chest, size = self.chest, self.chest.heart
        border = self.ellipse(size / 6, chest.dome - 0.28 * size, 0.55 * size, 0.45 * size, chest.heart_tilt)
        return sigmoid(0.6 * border / max(self.edge, 0.006))

    def mediastinum(self) -> Plane:
        """Return the mask of the great vessels, which widen towards the heart, and the aortic knob."""
        chest, x, y = self.chest, self.across, self.down
        below = np.clip(y - self.hilum + 0.06, 0, 0.2)
        column = np.minimum(0.053 + chest.heart * below - x, 0.055 + 0.3 * chest.heart * below + x)
        knob = self.ellipse(0.031, chest.apex + 0.17, chest.knob, 1.15 * chest.knob)
        return np.maximum(self.inside(0.7 * column) * sigmoid((y - chest.apex) / 0.03), self.inside(knob))

    def ellipse(self, across: float, down: float, width: float, height: float, tilt: float = 0.0) -> Plane:
        """Return the approximate distance from the border of an ellipse with these half axes, positive inside."""
        x, y = self.across - across, self.down - down
        x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        radius: Plane = np.hypot(x / width, y / height)
        return (1 - radius) * min(width, height)

    def pair(self, lateral: float, down: float, width: float, height: float, tilt: float = 0.0) -> Plane:
        """Return the distance for two ellipses, mirrored at the midline; `tilt` rotates them towards it."""
        right = self.ellipse(-lateral, down, width, height, -tilt)
        return np.maximum(right, self.ellipse(lateral, down, width, height, tilt))

    def haze(self, across: float, down: float, width: float, height: float) -> Plane:
        """Return a Gaussian: 1 in the center, 0.6 at these half axes."""
        return np.exp(-0.5 * (((self.across - across) / width) ** 2 + ((self.down - down) / height) ** 2))

    def line(self, distance: Plane, width: float) -> Plane:
        """Return 1 where `distance` is 0, decreasing within `width` or at least about a pixel."""
        return np.exp(-0.5 * (distance / max(width, 1.3 * self.edge)) ** 2)

    def texture(self, random: Generator, grain: float) -> Plane:
        """Return smooth noise of about unit variance with structures of the size `grain`."""
        cells = round(1.5 / grain)  # sufficient for a rotated and shifted image; the noise is periodic
        position = np.stack([self.down, self.across + 0.5]) / grain
        noise: Plane = ndimage.map_coordinates(
            random.standard_normal((cells, cells)), position, order=3, mode="grid-wrap"
        )
        return noise

    def vessels(self, random: Generator) -> Plane:
        """Return the density of the vessels, which spread from the hila and taper, and of a faint texture."""
        density = 0.01 * self.texture(random, 0.03)
        for side in (RIGHT, LEFT):
            x, y = side * self.across - 0.07, self.down - self.hilum
            radius, direction = np.hypot(x, y), np.arctan2(y, x)
            for angle in np.linspace(-1.35, 1.35, 9) + random.normal(0, 0.09, 9):
                bend = angle + random.normal(0, 1.2) * radius + 0.12 * np.sin(30 * radius + 7 * angle)
                reach = np.exp(-radius / random.uniform(0.1, 0.2)) * (1 - np.exp(-((radius / 0.04) ** 2)))
                density += self.chest.vessels * reach * self.line(radius * (direction - bend), 0.005)
        return density * self.air

    def spot(self, random: Generator, lateral: tuple[float, float], height: tuple[float, float]) -> tuple[float, float]:
        """Return the coordinates of a random point in a lung, in ranges of its width and its height from the apex."""
        side = random.choice([RIGHT, LEFT])
        across = side * self.chest.width * random.uniform(*lateral)
        return across, self.chest.apex + (self.chest.dome - self.chest.apex) * random.uniform(*height)
