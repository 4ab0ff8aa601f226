"""The pixels of one image in coordinates of the chest, and the shapes that tissues and signs are made of.

The coordinates are `across` (0 at the midline, positive towards the patient's left, which is the image's right) and
`down` (0 at the top of the image); both, and every length, are in sides of the image, so all sizes show the same chest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from tools.phantom.anatomy import LEFT, RIGHT, Chest

Plane = NDArray[np.float64]  # one value a pixel: shape (size, size)


@dataclass(frozen=True)
class Position:
    """How the patient lies in one image."""

    tilt: float  # radians
    shift: tuple[float, float]  # to the image's right and downwards
    zoom: float


def sigmoid(value: Plane) -> Plane:
    """The logistic function, in a form that cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * value)


class Canvas:
    """The pixels of one image in coordinates of the chest, with the shapes that tissues and signs share.

    `across` and `down` are the coordinates of each pixel, `air` is 1 in the lungs and little where heart or vessels
    overlie them, `markings` is the density of the vessels: planes, as everything that a method returns, but for `spot`.
    `hilum` is the height of the roots of the lungs. Heights are counted downwards from the top of the image.
    """

    def __init__(self, chest: Chest, position: Position, size: int, random: Generator) -> None:
        """Lay `chest` on a film of `size` x `size` pixels; `random` draws the vessels."""
        self.chest = chest
        self.edge = max(0.003, 0.45 / size)  # softness of borders: half a pixel, but no less than the film's own 1 mm
        row, column = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        column, row = (column - position.shift[0]) / position.zoom, (row - position.shift[1]) / position.zoom
        self.across: Plane = column * np.cos(position.tilt) + row * np.sin(position.tilt)
        self.down: Plane = row * np.cos(position.tilt) - column * np.sin(position.tilt) + 0.5
        self.hilum = chest.apex + 0.48 * (chest.dome - chest.apex)
        lungs = np.maximum(self.lung(RIGHT), self.lung(LEFT))
        # The lung before and behind the heart and the great vessels is still there, and shows a little.
        self.air: Plane = lungs * (1 - 0.85 * np.maximum(self.heart(), self.mediastinum()))
        self.markings = self.vessels(random)

    def lateral(self, side: int = 0) -> Plane:
        """Distance from the midline towards `side`, or to both sides, in widths of a lung."""
        distance: Plane = side * self.across if side else np.abs(self.across)
        return distance / self.chest.width

    def inside(self, distance: Plane) -> Plane:
        """1 where `distance` to a border is positive, 0 where negative, with an edge of a few pixels."""
        return sigmoid(distance / self.edge)

    def diaphragm(self, side: int) -> Plane:
        """Height of the hemidiaphragm of `side` at every pixel's distance from the midline; its dome is at 0.4."""
        chest = self.chest
        lateral = self.lateral(side) - 0.4
        curve = np.where(lateral > 0, (lateral / 0.6) ** 2, 0.3 * (lateral / 0.4) ** 2)
        top = chest.dome + (chest.dome_step if side == LEFT else 0.0) - max(0.0, side * chest.raised)
        return top + chest.angle_depth * np.minimum(curve, 1.5)

    def lung(self, side: int, inset: float = 0.0, drop: float = 0.0) -> Plane:
        """1 inside the lung of `side`; its lateral wall moved inwards by `inset` and its apex down by `drop`."""
        chest = self.chest
        width, apex = chest.width - inset, chest.apex + drop
        base = chest.dome + chest.angle_depth
        rise = np.clip((base - self.down) / (base - apex), 0, None)
        middle = width * (0.5 - 0.07 * rise)
        wall = 1 - rise**2.6 - np.abs((side * self.across - middle) / (width / 2 + 0.01)) ** 2.8
        return self.inside(0.25 * width * wall) * self.inside(self.diaphragm(side) - self.down)

    def heart(self) -> Plane:
        """1 inside the heart: a tilted ellipse, a third of it right of the midline, that rests on the diaphragm.

        It beats during the exposure, so its border is softer than others, at any size.
        """
        chest, size = self.chest, self.chest.heart
        border = self.ellipse(size / 6, chest.dome - 0.28 * size, 0.55 * size, 0.45 * size, chest.heart_tilt)
        return sigmoid(0.6 * border / max(self.edge, 0.006))

    def mediastinum(self) -> Plane:
        """1 inside the great vessels, which widen towards the heart, and the aortic knob."""
        chest, x, y = self.chest, self.across, self.down
        below = np.clip(y - self.hilum + 0.06, 0, 0.2)
        column = np.minimum(0.053 + chest.heart * below - x, 0.055 + 0.3 * chest.heart * below + x)
        knob = self.ellipse(0.031, chest.apex + 0.17, chest.knob, 1.15 * chest.knob)
        return np.maximum(self.inside(0.7 * column) * sigmoid((y - chest.apex) / 0.03), self.inside(knob))

    def ellipse(self, across: float, down: float, width: float, height: float, tilt: float = 0.0) -> Plane:
        """Rough distance from the border of an ellipse with these half axes, positive inside; `tilt` in radians."""
        x, y = self.across - across, self.down - down
        x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        radius: Plane = np.hypot(x / width, y / height)
        return (1 - radius) * min(width, height)

    def pair(self, lateral: float, down: float, width: float, height: float, tilt: float = 0.0) -> Plane:
        """The same ellipse on both sides; `tilt` turns it towards the midline."""
        right = self.ellipse(-lateral, down, width, height, -tilt)
        return np.maximum(right, self.ellipse(lateral, down, width, height, tilt))

    def haze(self, across: float, down: float, width: float, height: float) -> Plane:
        """A cloud without borders: 1 in its middle, 0.6 at these half axes."""
        return np.exp(-0.5 * (((self.across - across) / width) ** 2 + ((self.down - down) / height) ** 2))

    def line(self, distance: Plane, width: float) -> Plane:
        """1 where `distance` is 0, falling off within `width`, or a pixel so that no line is lost in a small image."""
        return np.exp(-0.5 * (distance / max(width, 1.3 * self.edge)) ** 2)

    def texture(self, random: Generator, grain: float) -> Plane:
        """Smooth noise of about unit variance with structures of the size `grain`."""
        cells = round(1.5 / grain)  # enough for a tilted and shifted image; beyond them the noise repeats
        place = np.stack([self.down, self.across + 0.5]) / grain
        noise: Plane = ndimage.map_coordinates(random.standard_normal((cells, cells)), place, order=3, mode="grid-wrap")
        return noise

    def vessels(self, random: Generator) -> Plane:
        """Density of the vessels that fan out from the hila and thin out to the pleura, on a faint lung texture."""
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
        """Coordinates of a point in either lung, within these fractions of its width and, from the apex, its height."""
        side = random.choice([RIGHT, LEFT])
        across = side * self.chest.width * random.uniform(*lateral)
        return across, self.chest.apex + (self.chest.dome - self.chest.apex) * random.uniform(*height)
