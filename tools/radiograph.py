"""One synthetic frontal chest radiograph: anatomy, projection, and a sign for each finding.

The picture is a sum of X-ray densities (0 is air, about 1 the abdomen), as overlapping tissues are in a real one; the
film's curve comes last. All lengths are in sides of the image, so every size shows the same chest. Coordinates of the
chest are `across` (0 at the midline, positive towards the patient's left, which is the image's right) and `down`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cxr.findings import FINDINGS

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]

RIGHT, LEFT = -1, 1  # of the patient
NIH_SIDE = 1024  # pixels: the frame in which NIH gives its boxes
ANATOMY, EXPOSURE, LESION, HISTORY = range(4)  # streams of random numbers that share no values


def stream_of(stream: int, seed: int, *key: int) -> Generator:
    """Random numbers that depend on these integers alone, never on what was drawn before."""
    return np.random.default_rng([stream, seed, *key])


@dataclass(frozen=True)
class Exam:
    """One image to draw. `strengths` has a value in (0, 1] for each positive finding; near 0 it cannot be seen."""

    seed: int
    patient: int
    number: int
    age: int
    sex: str
    view: str
    strengths: Mapping[str, float] = field(default_factory=dict)

    def random(self, stream: int, *key: int) -> Generator:
        """Random numbers that depend on the patient and `key` alone, never on what was drawn before."""
        return stream_of(stream, self.seed, self.patient, *key)


@dataclass(frozen=True)
class Chest:
    """The anatomy of one patient; lengths in sides of the image, from its top or from the midline."""

    apex: float  # top of the lungs
    dome: float  # top of the right hemidiaphragm
    dome_step: float  # how much lower the left one is
    angle_depth: float  # depth of the costophrenic angles below the domes
    width: float  # of one lung, from the midline to the lateral wall
    wall: float  # thickness of the chest wall
    heart: float  # transverse diameter
    heart_tilt: float  # radians
    knob: float  # radius of the aortic knob
    rib_spacing: float
    rib_slope: float
    rib_density: float
    vessels: float  # density of the vascular markings
    air: float  # density that the lungs take away
    breast: float  # density of the breast shadows, 0 in men
    bubble: float  # width of the gastric bubble, 0 if there is none
    pacemaker: bool
    raised: float = 0.0  # how far the right (negative) or left hemidiaphragm is pulled up


@dataclass(frozen=True)
class View:
    """Position and exposure of one image."""

    tilt: float  # radians
    shift: tuple[float, float]
    zoom: float
    gain: float
    level: float
    noise: float
    blur: float


def sigmoid(value: Array) -> Array:
    """The logistic function, in a form that cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * value)


class Canvas:
    """The pixels of one image in coordinates of the chest, with the shapes that several signs need."""

    def __init__(self, chest: Chest, view: View, size: int, random: Generator) -> None:
        self.chest = chest
        self.edge = max(0.003, 0.45 / size)
        row, column = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        column, row = (column - view.shift[0]) / view.zoom, (row - view.shift[1]) / view.zoom
        self.across: Array = column * np.cos(view.tilt) + row * np.sin(view.tilt)
        self.down: Array = row * np.cos(view.tilt) - column * np.sin(view.tilt) + 0.5
        self.hilum = chest.apex + 0.48 * (chest.dome - chest.apex)
        self.lungs: Array = np.maximum(self.lung(RIGHT), self.lung(LEFT))
        self.air: Array = self.lungs * (1 - 0.85 * np.maximum(self.heart(), self.mediastinum()))
        self.markings = self.vessels(random)

    def lateral(self, side: int = 0) -> Array:
        """Distance from the midline towards `side`, or to both sides, in widths of a lung."""
        distance: Array = side * self.across if side else np.abs(self.across)
        return distance / self.chest.width

    def inside(self, distance: Array) -> Array:
        """1 where `distance` to a border is positive, 0 where negative, with an edge of about one pixel."""
        return sigmoid(distance / self.edge)

    def diaphragm(self, side: int) -> Array:
        """Height of the hemidiaphragm of `side` at every pixel's distance from the midline."""
        chest = self.chest
        lateral = self.lateral(side) - 0.4
        curve = np.where(lateral > 0, (lateral / 0.6) ** 2, 0.3 * (lateral / 0.4) ** 2)
        top = chest.dome + (chest.dome_step if side == LEFT else 0.0) - max(0.0, side * chest.raised)
        return top + chest.angle_depth * np.minimum(curve, 1.5)

    def lung(self, side: int, inset: float = 0.0, drop: float = 0.0) -> Array:
        """1 inside the lung of `side`; its lateral wall moved inwards by `inset` and its apex down by `drop`."""
        chest = self.chest
        width, apex = chest.width - inset, chest.apex + drop
        base = chest.dome + chest.angle_depth
        rise = np.clip((base - self.down) / (base - apex), 0, None)
        middle = width * (0.5 - 0.07 * rise)
        wall = 1 - rise**2.6 - np.abs((side * self.across - middle) / (width / 2 + 0.01)) ** 2.8
        return self.inside(0.25 * width * wall) * self.inside(self.diaphragm(side) - self.down)

    def heart(self) -> Array:
        """1 inside the heart: a tilted ellipse, a third of it right of the midline, that rests on the diaphragm."""
        chest, size = self.chest, self.chest.heart
        border = self.ellipse(size / 6, chest.dome - 0.28 * size, 0.55 * size, 0.45 * size, chest.heart_tilt)
        return sigmoid(0.6 * border / max(self.edge, 0.006))

    def mediastinum(self) -> Array:
        """1 inside the great vessels, which widen towards the heart, and the aortic knob."""
        chest, x, y = self.chest, self.across, self.down
        below = np.clip(y - self.hilum + 0.06, 0, 0.2)
        column = np.minimum(0.053 + chest.heart * below - x, 0.055 + 0.3 * chest.heart * below + x)
        knob = self.ellipse(0.031, chest.apex + 0.17, chest.knob, 1.15 * chest.knob)
        return np.maximum(self.inside(0.7 * column) * sigmoid((y - chest.apex) / 0.03), self.inside(knob))

    def ellipse(self, across: float, down: float, width: float, height: float, tilt: float = 0.0) -> Array:
        """Distance from the border of an ellipse with these half axes, positive inside and roughly to scale."""
        x, y = self.across - across, self.down - down
        x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        radius: Array = np.hypot(x / width, y / height)
        return (1 - radius) * min(width, height)

    def pair(self, lateral: float, down: float, width: float, height: float, tilt: float = 0.0) -> Array:
        """The same ellipse on both sides; `tilt` turns it towards the midline."""
        right = self.ellipse(-lateral, down, width, height, -tilt)
        return np.maximum(right, self.ellipse(lateral, down, width, height, tilt))

    def haze(self, across: float, down: float, width: float, height: float) -> Array:
        """A cloud without borders: 1 in its middle, 0.6 at these half axes."""
        cloud: Array = np.exp(-0.5 * (((self.across - across) / width) ** 2 + ((self.down - down) / height) ** 2))
        return cloud

    def line(self, distance: Array, width: float) -> Array:
        """1 where `distance` is 0, falling off within `width` or about a pixel."""
        return np.exp(-0.5 * (distance / max(width, 1.3 * self.edge)) ** 2)

    def texture(self, random: Generator, grain: float) -> Array:
        """Smooth noise of unit variance with structures of the size `grain`."""
        cells = round(1.5 / grain)
        place = np.stack([self.down, self.across + 0.5]) / grain
        noise: Array = ndimage.map_coordinates(random.standard_normal((cells, cells)), place, order=3, mode="grid-wrap")
        return noise

    def vessels(self, random: Generator) -> Array:
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
        """A random point of a lung, within these fractions of its width and of its height from the apex."""
        side = random.choice([RIGHT, LEFT])
        across = side * self.chest.width * random.uniform(*lateral)
        return across, self.chest.apex + (self.chest.dome - self.chest.apex) * random.uniform(*height)


# --- the normal chest -------------------------------------------------------------------------------------------------


def patient_chest(exam: Exam) -> Chest:
    """The anatomy that all images of a patient share, as an erect PA image shows it."""
    random = exam.random(ANATOMY)
    width = random.normal(0.355, 0.014)
    return Chest(
        apex=random.normal(0.115, 0.015),
        dome=random.normal(0.735, 0.024),
        dome_step=random.uniform(0.005, 0.035),
        angle_depth=random.uniform(0.075, 0.115),
        width=width,
        wall=random.uniform(0.03, 0.085),
        heart=2 * width * random.normal(0.45, 0.026),
        heart_tilt=random.uniform(0.3, 0.7),
        knob=0.022 + 0.0002 * exam.age + random.uniform(-0.004, 0.006),
        rib_spacing=random.uniform(0.06, 0.075),
        rib_slope=random.uniform(0.05, 0.13),
        rib_density=random.uniform(0.07, 0.12),
        vessels=random.uniform(0.10, 0.16),
        air=random.normal(0.52, 0.025),
        breast=random.uniform(0.03, 0.12) if exam.sex == "F" and random.random() < 0.75 else 0.0,
        bubble=random.uniform(0.03, 0.06) if random.random() < 0.5 else 0.0,
        pacemaker=random.random() < 0.04,
    )


def projected(chest: Chest, view: str, random: Generator) -> Chest:
    """The chest as this image shows it: AP magnifies the heart, and each breath leaves the domes at another height."""
    supine = view == "AP"
    breath = random.normal(-0.025 if supine else 0.0, 0.012)
    heart = chest.heart * random.normal(1.06 if supine else 1.0, 0.015)
    return replace(chest, dome=chest.dome + breath, heart=heart, bubble=0.0 if supine else chest.bubble)


def exposed(view: str, random: Generator) -> View:
    """Position and exposure: AP images, taken at the bedside, are the less straight, the flatter and the noisier."""
    supine = view == "AP"
    return View(
        tilt=random.normal(0.0, 0.035 if supine else 0.015),
        shift=(random.normal(0.0, 0.015), random.normal(0.01, 0.012)),
        zoom=random.normal(1.0, 0.025),
        gain=random.normal(4.0 if supine else 4.6, 0.3),
        level=random.normal(0.60, 0.035),
        noise=random.uniform(0.0009, 0.0014) if supine else random.uniform(0.0005, 0.001),
        blur=random.uniform(0.002, 0.005),
    )


def body(canvas: Canvas) -> Array:
    """Soft tissue: neck, shoulders, chest wall and the abdomen below the diaphragm."""
    chest, side = canvas.chest, np.abs(canvas.across)
    torso = chest.width + chest.wall + 0.22 * np.exp(-(((canvas.down - chest.apex - 0.03) / 0.17) ** 2))
    shoulder = canvas.down - (chest.apex - 0.07 + 0.45 * np.maximum(side - 0.11, 0) ** 1.3)
    outline = canvas.inside(0.5 * (torso - side)) * np.maximum(canvas.inside(shoulder), canvas.inside(0.11 - side))
    thickness = 0.62 + 0.2 * np.sqrt(np.clip((torso - side) / 0.3, 0, 1)) + 1.2 * (chest.wall - 0.05)
    below = canvas.inside(canvas.down - np.where(canvas.across < 0, canvas.diaphragm(RIGHT), canvas.diaphragm(LEFT)))
    return outline * (thickness + 0.16 * below)


def midline(canvas: Canvas) -> Array:
    """The spine with its discs and the hila, less the air of the trachea."""
    x, y = canvas.across, canvas.down
    discs = 0.02 * np.cos(2 * np.pi * y / (0.8 * canvas.chest.rib_spacing))
    spine = canvas.inside(0.6 * (0.04 - np.abs(x))) * (0.09 + discs)
    trachea = canvas.inside(0.019 - np.abs(x + 0.004)) * sigmoid((canvas.chest.apex + 0.22 - y) / 0.01)
    hila = canvas.haze(-0.085, canvas.hilum + 0.015, 0.02, 0.045) + canvas.haze(0.085, canvas.hilum - 0.01, 0.02, 0.04)
    return spine - 0.14 * trachea + 0.11 * hila


def ribs(canvas: Canvas) -> Array:
    """Posterior arcs, nearly level, and fainter anterior ones that fall towards the sternum; both repeat downwards."""
    chest = canvas.chest
    lateral = np.abs(canvas.across) / (chest.width + 0.015)
    cage = canvas.inside(canvas.chest.width + 0.012 - np.abs(canvas.across)) * sigmoid(
        (canvas.down - chest.apex) / 0.01
    )
    cage *= np.maximum(canvas.air, 0.35) * sigmoid((lateral - 0.12) / 0.03)
    posterior = canvas.down + 0.05 * np.sin(np.pi * np.minimum(lateral, 1)) - chest.rib_slope * lateral**2
    anterior = canvas.down - 0.17 * (1 - np.minimum(lateral, 1)) ** 0.8 - 0.02
    arcs = _arc(posterior, chest.rib_spacing) + 0.5 * _arc(anterior, chest.rib_spacing) * sigmoid(
        (lateral - 0.4) / 0.04
    )
    return chest.rib_density * cage * arcs * sigmoid((0.93 - canvas.down) / 0.02)


def _arc(height: Array, spacing: float) -> Array:
    """Bands a third of `spacing` wide with dense borders, as cortical bone has."""
    phase = np.abs((height / spacing) % 1 - 0.5)
    return sigmoid((0.2 - phase) / 0.04) * (0.7 + 0.5 * (phase / 0.2) ** 2)


def shoulders(canvas: Canvas) -> Array:
    """Clavicles, humeral heads and the blades of the scapulae."""
    chest, side = canvas.chest, np.abs(canvas.across)
    lateral = (side - 0.035) / 0.4
    collar = canvas.down - (chest.apex + 0.075 - 0.09 * lateral - 0.018 * np.sin(2 * np.pi * lateral))
    clavicle = canvas.line(collar, 0.009) * canvas.inside(side - 0.035) * canvas.inside(0.43 - side)
    humerus = canvas.inside(canvas.pair(0.49, chest.apex + 0.06, 0.055, 0.06))
    blade = canvas.pair(0.375, chest.apex + 0.17, 0.04, 0.13, 0.25)
    return 0.15 * clavicle + 0.12 * humerus + 0.06 * canvas.inside(blade) + 0.03 * canvas.line(blade, 0.005)


def soft_shadows(canvas: Canvas, random: Generator) -> Array:
    """What lies over lungs and abdomen: breasts, the air under the left dome, bowel gas."""
    chest = canvas.chest
    breasts = canvas.pair(0.2, chest.dome - 0.06, 0.15, 0.15)
    density = chest.breast * canvas.inside(breasts) * np.clip(0.4 + 6 * breasts, 0, 1)
    if chest.bubble:
        top = chest.dome + chest.dome_step + 0.055
        air = canvas.inside(canvas.ellipse(0.15, top, 1.5 * chest.bubble, chest.bubble))
        density -= 0.28 * air * canvas.inside(top + 0.5 * chest.bubble - canvas.down)
    gas = canvas.texture(random, 0.07) * sigmoid((canvas.down - chest.dome - 0.12) / 0.02)
    return density - 0.05 * np.maximum(gas - 0.5, 0)


def normal_chest(canvas: Canvas, random: Generator) -> Array:
    """Density of a chest without findings, float64 of the canvas's shape."""
    tissue = body(canvas) + midline(canvas) + soft_shadows(canvas, random)
    return tissue - canvas.chest.air * canvas.air + ribs(canvas) + shoulders(canvas) + canvas.markings


# --- findings that reshape the chest ----------------------------------------------------------------------------------


def enlarge_heart(chest: Chest, _: Generator, strength: float) -> Chest:
    """Cardiomegaly: a heart wider than half the chest."""
    return replace(chest, heart=chest.heart * (1 + 0.29 * strength))


def overinflate(chest: Chest, _: Generator, strength: float) -> Chest:
    """Emphysema: low flat domes, a narrow heart, dark lungs with few vessels."""
    return replace(
        chest,
        dome=chest.dome + 0.035 * strength,
        angle_depth=chest.angle_depth * (1 - 0.45 * strength),
        heart=chest.heart * (1 - 0.12 * strength),
        air=chest.air + 0.05 * strength,
        vessels=chest.vessels * (1 - 0.5 * strength),
    )


def lose_volume(chest: Chest, random: Generator, strength: float) -> Chest:
    """Atelectasis: the hemidiaphragm of its side is pulled up."""
    return replace(chest, raised=random.choice([RIGHT, LEFT]) * 0.045 * strength)


RESHAPES: dict[str, Callable[[Chest, Generator, float], Chest]] = {
    "Atelectasis": lose_volume,
    "Cardiomegaly": enlarge_heart,
    "Emphysema": overinflate,
}

# --- findings that add to or take from the density --------------------------------------------------------------------


def atelectasis(canvas: Canvas, random: Generator) -> Array:
    """Plate-like bands at the base, with some haze below them."""
    side = random.choice([RIGHT, LEFT])
    across, base = side * canvas.chest.width * random.uniform(0.5, 0.65), canvas.chest.dome - 0.045
    density = 0.08 * canvas.haze(across, base + 0.02, 0.1, 0.04)
    for step in range(random.integers(2, 4)):
        slope = side * random.uniform(-0.35, 0.1)
        height = canvas.down - base + 0.032 * step - slope * (canvas.across - across)
        extent = canvas.haze(across + random.normal(0, 0.02), base, random.uniform(0.06, 0.09), 1.0)
        density += 0.21 * canvas.line(height, 0.007) * extent
    return density * canvas.lung(side)


def cardiomegaly(canvas: Canvas, _: Generator) -> Array:
    """The heart itself, which `enlarge_heart` has widened; little is added to it."""
    return 0.02 * canvas.heart()


def consolidation(canvas: Canvas, random: Generator) -> Array:
    """A dense, even opacity that a fissure cuts off on one side and that hides the vessels."""
    across, down = canvas.spot(random, (0.45, 0.7), (0.3, 0.85))
    width, height, tilt = random.uniform((0.08, 0.07, -0.4), (0.12, 0.1, 0.4))
    border = canvas.ellipse(across, down, width, height, tilt)
    fissure = (canvas.down - down) * random.choice([-1, 1]) + 0.035 + 0.1 * np.abs(canvas.across - across)
    shape = sigmoid(border / 0.012) * canvas.inside(fissure) * canvas.air
    return shape * (0.26 - canvas.markings)


def edema(canvas: Canvas, random: Generator) -> Array:
    """Bat wings: haze around both hila, swollen vessels, and short Kerley lines at the lateral bases."""
    width, height = random.uniform(0.07, 0.1), random.uniform(0.1, 0.14)
    wings = sum(canvas.haze(side * 0.13, canvas.hilum + 0.02, width, height) for side in (RIGHT, LEFT))
    periphery = sigmoid((canvas.lateral() - 0.8) / 0.02)
    kerley = (np.abs((canvas.down / 0.024) % 1 - 0.5) < 0.22) * canvas.haze(0, canvas.chest.dome - 0.04, 1.0, 0.05)
    uneven = 1 + 0.3 * canvas.texture(random, 0.06)
    return canvas.air * (0.13 * wings * uneven + 0.05 * kerley * periphery + 0.3 * canvas.markings)


def effusion(canvas: Canvas, random: Generator) -> Array:
    """Fluid at the base: an opaque angle whose upper border, the meniscus, climbs along the lateral wall."""
    side = random.choice([RIGHT, LEFT])
    lateral = np.clip(canvas.lateral(side), 0, 1)
    level = canvas.chest.dome + 0.02 - random.uniform(-0.01, 0.09) - 0.08 * lateral**4
    fluid = sigmoid((canvas.down - level) / 0.012) * canvas.lung(side) * canvas.air
    return fluid * (0.3 - canvas.markings)


def emphysema(canvas: Canvas, random: Generator) -> Array:
    """Bullae: dark round holes without vessels, of a thin wall, in lungs that `overinflate` has enlarged."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(1, 4)):
        radius = random.uniform(0.03, 0.06)
        border = canvas.ellipse(*canvas.spot(random, (0.4, 0.8), (0.12, 0.6)), radius, radius)
        density += 0.05 * canvas.line(border, 0.004) - canvas.inside(border) * (0.07 + canvas.markings)
    return density * canvas.air


def fibrosis(canvas: Canvas, random: Generator) -> Array:
    """A net of fine lines at the bases and the periphery of both lungs."""
    net = canvas.line(canvas.texture(random, 0.024), 0.3) + canvas.line(canvas.texture(random, 0.035), 0.2)
    periphery = 0.35 + 0.65 * sigmoid((canvas.lateral() - 0.55) / 0.1)
    place = periphery * canvas.haze(0, canvas.chest.dome, 1.0, random.uniform(0.1, 0.2))
    return 0.165 * net * place * canvas.air


def hernia(canvas: Canvas, random: Generator) -> Array:
    """A stomach behind the heart: a dense round wall with an air-fluid level."""
    radius, across = random.uniform(0.055, 0.085), random.uniform(-0.02, 0.06)
    down = canvas.chest.dome - 0.5 * radius
    border = canvas.ellipse(across, down, 1.15 * radius, radius)
    air = canvas.inside(border - 0.01) * canvas.inside(down - 0.1 * radius - canvas.down)
    return 0.19 * canvas.inside(border) - 0.38 * air


def infiltration(canvas: Canvas, random: Generator) -> Array:
    """Several hazy patches without borders, in one lung or both."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(3, 6)):
        spread = random.uniform(0.03, 0.06)
        density += canvas.haze(*canvas.spot(random, (0.3, 0.8), (0.2, 0.95)), spread, spread)
    return 0.145 * canvas.air * density * (1 + 0.35 * canvas.texture(random, 0.04))


def mass(canvas: Canvas, random: Generator) -> Array:
    """A round, lobulated opacity, wider than 3 cm (0.085 of the image)."""
    across, down = canvas.spot(random, (0.4, 0.75), (0.2, 0.8))
    radius = random.uniform(0.046, 0.075)
    border = canvas.ellipse(across, down, radius, radius * random.uniform(0.85, 1.15))
    lobes = np.sin(3 * np.arctan2(canvas.down - down, canvas.across - across) + random.uniform(0, 6)) * 0.006
    return 0.36 * sigmoid((border + lobes) / 0.007) * np.maximum(canvas.air, 0.4)


def nodule(canvas: Canvas, random: Generator) -> Array:
    """One to three small round opacities, under 3 cm wide."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(1, 4)):
        radius = random.uniform(0.02, 0.032)
        density += 0.4 * sigmoid(canvas.ellipse(*canvas.spot(random, (0.4, 0.85), (0.15, 0.9)), radius, radius) / 0.005)
    return density * canvas.air


def pleural_thickening(canvas: Canvas, random: Generator) -> Array:
    """An opaque band along the lateral wall and over the apex of one lung."""
    side = random.choice([RIGHT, LEFT])
    band = canvas.lung(side) - canvas.lung(side, inset=random.uniform(0.025, 0.04), drop=random.uniform(0.02, 0.045))
    uneven = 1 + 0.3 * canvas.texture(random, 0.08)
    lateral = sigmoid((canvas.lateral(side) - 0.3) / 0.05)
    return 0.175 * np.clip(band, 0, 1) * uneven * lateral * sigmoid((canvas.chest.dome - canvas.down) / 0.03)


def pneumonia(canvas: Canvas, random: Generator) -> Array:
    """A patchy lobar opacity in which the bronchi, still full of air, branch as dark lines."""
    across, down = canvas.spot(random, (0.4, 0.65), (0.55, 0.9))
    lobe = canvas.haze(across, down, random.uniform(0.07, 0.1), random.uniform(0.06, 0.09))
    patches = sigmoid(2 * canvas.texture(random, 0.028) + 0.8)
    x, y = np.abs(canvas.across) - 0.07, canvas.down - canvas.hilum
    bronchi = np.cos(11 * np.arctan2(y, x) + random.uniform(0, 6)) > 0.8
    return canvas.air * lobe * (0.35 * patches - 0.12 * bronchi)


def pneumothorax(canvas: Canvas, random: Generator) -> Array:
    """A dark rim without vessels outside a thin pleural line, widest over the apex."""
    side = random.choice([RIGHT, LEFT])
    collapsed = canvas.lung(side, inset=random.uniform(0.025, 0.08), drop=random.uniform(0.04, 0.13))
    whole = canvas.lung(side)
    lateral = sigmoid((canvas.lateral(side) - 0.2) / 0.05)
    rim, pleura = whole * (1 - collapsed) * lateral, 4 * collapsed * (1 - collapsed) * whole * lateral
    return 0.08 * pleura - rim * (0.08 + canvas.markings) + 0.02 * collapsed


SIGNS: dict[str, Callable[[Canvas, Generator], Array]] = {
    "Atelectasis": atelectasis,
    "Cardiomegaly": cardiomegaly,
    "Consolidation": consolidation,
    "Edema": edema,
    "Effusion": effusion,
    "Emphysema": emphysema,
    "Fibrosis": fibrosis,
    "Hernia": hernia,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pleural_Thickening": pleural_thickening,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
}

# --- what the room adds -----------------------------------------------------------------------------------------------


def devices(canvas: Canvas, view: str, random: Generator) -> Array:
    """Electrodes, a central line and a pacemaker; commoner at the bedside, and independent of the findings."""
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


def lettering(size: int, view: str, random: Generator) -> Array:
    """Mask of the lead letters that mark the side or the projection, float64 in 0..1 of shape (size, size)."""
    sheet = Image.new("L", (4 * size, 4 * size))
    if random.random() < 0.8:
        text, place = ("AP", (0.06, 0.04)) if view == "AP" and random.random() < 0.5 else ("L", (0.88, 0.05))
        corner = (4 * size * (place[0] + random.uniform(0, 0.03)), 4 * size * (place[1] + random.uniform(0, 0.06)))
        ImageDraw.Draw(sheet).text(corner, text, fill=255, font=ImageFont.load_default(size=0.2 * size))
    return np.asarray(sheet.reduce(4), dtype=np.float64) / 255


def developed(density: Array, view: View, random: Generator) -> NDArray[np.uint8]:
    """The film: blur, noise that grows where few photons pass, and the S-shaped curve; uint8 of the same shape."""
    density = ndimage.gaussian_filter(density, view.blur * len(density))
    noise = view.noise * np.exp(1.1 * np.clip(density, 0, 1.2)) * random.standard_normal(density.shape)
    return np.round(255 * sigmoid(view.gain * (density + noise - view.level))).astype(np.uint8)


def box(sign: Array) -> Box:
    """x, y, width and height, in pixels of NIH's 1024 x 1024 frame, around the largest part of a sign's density."""
    regions, _ = ndimage.label(np.abs(sign) > 0.4 * np.abs(sign).max())
    largest = int(np.bincount(regions.flat)[1:].argmax())
    rows, columns = ndimage.find_objects(regions)[largest]
    scale = NIH_SIDE / len(sign)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return columns.start * scale, rows.start * scale, width * scale, height * scale


def draw(exam: Exam, size: int) -> tuple[NDArray[np.uint8], dict[str, Box]]:
    """The image of `exam`, uint8 of shape (size, size), and the box of each of its findings.

    Where a finding lies is the patient's own and stays over his images; how strong it is, is the image's.
    """
    random = exam.random(EXPOSURE, exam.number)
    chest, view = projected(patient_chest(exam), exam.view, random), exposed(exam.view, random)
    for finding, strength in exam.strengths.items():
        if finding in RESHAPES:
            chest = RESHAPES[finding](chest, _lesion(exam, finding), strength)
    canvas = Canvas(chest, view, size, exam.random(ANATOMY, 1))
    density = normal_chest(canvas, random) + devices(canvas, exam.view, random)
    boxes = {}
    for finding, strength in exam.strengths.items():
        sign = strength * SIGNS[finding](canvas, _lesion(exam, finding))
        density, boxes[finding] = density + sign, box(sign)
    density += 0.8 * lettering(size, exam.view, random)
    return developed(density, view, random), boxes


def _lesion(exam: Exam, finding: str) -> Generator:
    return exam.random(LESION, FINDINGS.index(finding))
