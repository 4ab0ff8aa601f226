"""Radiographic signs of each finding: deformations of the chest, and changes of its density.

A deformation takes the strength of the finding, in (0, 1]. A sign is the X-ray density added at full strength, a
`Plane`, which the caller scales; it is negative where air replaces tissue. Signs that subtract `canvas.markings` hide
the vessels. Lengths are fractions of the side of the image, about 35 cm.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from tools.phantom.anatomy import LEFT, RIGHT, Chest
from tools.phantom.canvas import Canvas, Plane, sigmoid

# --- deformations of the chest ----------------------------------------------------------------------------------------


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
    """Atelectasis: the hemidiaphragm of the affected side is elevated.

    Like `atelectasis`, it chooses the side first, so the same random numbers give the same side.
    """
    return replace(chest, raised=random.choice([RIGHT, LEFT]) * 0.045 * strength)


DEFORMATIONS: Mapping[str, Callable[[Chest, Generator, float], Chest]] = {
    "Atelectasis": lose_volume,
    "Cardiomegaly": enlarge_heart,
    "Emphysema": overinflate,
}

# --- changes of the density -------------------------------------------------------------------------------------------


def atelectasis(canvas: Canvas, random: Generator) -> Plane:
    """Plate-like bands at the base of a lung, with some haze."""
    side = random.choice([RIGHT, LEFT])
    across, base = side * canvas.chest.width * random.uniform(0.5, 0.65), canvas.chest.dome - 0.045
    density = 0.08 * canvas.haze(across, base + 0.02, 0.1, 0.04)
    for step in range(random.integers(2, 4)):
        slope = side * random.uniform(-0.35, 0.1)
        height = canvas.down - base + 0.032 * step - slope * (canvas.across - across)
        extent = canvas.haze(across + random.normal(0, 0.02), base, random.uniform(0.06, 0.09), 1.0)
        density += 0.21 * canvas.line(height, 0.007) * extent
    return density * canvas.lung(side)


def cardiomegaly(canvas: Canvas, _: Generator) -> Plane:
    """Slightly denser heart, which `enlarge_heart` has widened."""
    return 0.02 * canvas.heart()


def consolidation(canvas: Canvas, random: Generator) -> Plane:
    """A dense, homogeneous opacity that ends at a fissure and hides the vessels."""
    across, down = canvas.spot(random, (0.45, 0.7), (0.3, 0.85))
    width, height, tilt = random.uniform((0.08, 0.07, -0.4), (0.12, 0.1, 0.4))
    border = canvas.ellipse(across, down, width, height, tilt)
    fissure = (canvas.down - down) * random.choice([-1, 1]) + 0.035 + 0.1 * np.abs(canvas.across - across)
    shape = sigmoid(border / 0.012) * canvas.inside(fissure) * canvas.air
    return shape * (0.26 - canvas.markings)


def edema(canvas: Canvas, random: Generator) -> Plane:
    """Batwing haze around both hila, engorged vessels, and Kerley lines at the lateral bases."""
    width, height = random.uniform(0.07, 0.1), random.uniform(0.1, 0.14)
    wings = sum(canvas.haze(side * 0.13, canvas.hilum + 0.02, width, height) for side in (RIGHT, LEFT))
    periphery = sigmoid((canvas.lateral() - 0.8) / 0.02)
    kerley = (np.abs((canvas.down / 0.024) % 1 - 0.5) < 0.22) * canvas.haze(0, canvas.chest.dome - 0.04, 1.0, 0.05)
    uneven = 1 + 0.3 * canvas.texture(random, 0.06)
    return canvas.air * (0.13 * wings * uneven + 0.05 * kerley * periphery + 0.3 * canvas.markings)


def effusion(canvas: Canvas, random: Generator) -> Plane:
    """Fluid at the base, which blunts the costophrenic angle; its meniscus rises along the lateral wall."""
    side = random.choice([RIGHT, LEFT])
    lateral = np.clip(canvas.lateral(side), 0, 1)
    level = canvas.chest.dome + 0.02 - random.uniform(-0.01, 0.09) - 0.08 * lateral**4
    fluid = sigmoid((canvas.down - level) / 0.012) * canvas.lung(side) * canvas.air
    return fluid * (0.3 - canvas.markings)


def emphysema(canvas: Canvas, random: Generator) -> Plane:
    """Bullae: round lucencies with thin walls and without vessels, in lungs enlarged by `overinflate`."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(1, 4)):
        radius = random.uniform(0.03, 0.06)
        border = canvas.ellipse(*canvas.spot(random, (0.4, 0.8), (0.12, 0.6)), radius, radius)
        density += 0.05 * canvas.line(border, 0.004) - canvas.inside(border) * (0.07 + canvas.markings)
    return density * canvas.air


def fibrosis(canvas: Canvas, random: Generator) -> Plane:
    """A reticular pattern at the bases and the periphery of both lungs."""
    net = canvas.line(canvas.texture(random, 0.024), 0.3) + canvas.line(canvas.texture(random, 0.035), 0.2)
    periphery = 0.35 + 0.65 * sigmoid((canvas.lateral() - 0.55) / 0.1)
    region = periphery * canvas.haze(0, canvas.chest.dome, 1.0, random.uniform(0.1, 0.2))
    return 0.165 * net * region * canvas.air


def hernia(canvas: Canvas, random: Generator) -> Plane:
    """Hiatal hernia: a round opacity with an air-fluid level behind the heart."""
    radius, across = random.uniform(0.055, 0.085), random.uniform(-0.02, 0.06)
    down = canvas.chest.dome - 0.5 * radius
    border = canvas.ellipse(across, down, 1.15 * radius, radius)
    air = canvas.inside(border - 0.01) * canvas.inside(down - 0.1 * radius - canvas.down)
    return 0.19 * canvas.inside(border) - 0.38 * air


def infiltration(canvas: Canvas, random: Generator) -> Plane:
    """Several ill-defined hazy patches in one or both lungs."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(3, 6)):
        spread = random.uniform(0.03, 0.06)
        density += canvas.haze(*canvas.spot(random, (0.3, 0.8), (0.2, 0.95)), spread, spread)
    return 0.145 * canvas.air * density * (1 + 0.35 * canvas.texture(random, 0.04))


def mass(canvas: Canvas, random: Generator) -> Plane:
    """A round, lobulated opacity of more than 3 cm (0.085)."""
    across, down = canvas.spot(random, (0.4, 0.75), (0.2, 0.8))
    radius = random.uniform(0.046, 0.075)
    border = canvas.ellipse(across, down, radius, radius * random.uniform(0.85, 1.15))
    lobes = np.sin(3 * np.arctan2(canvas.down - down, canvas.across - across) + random.uniform(0, 6)) * 0.006
    return 0.36 * sigmoid((border + lobes) / 0.007) * np.maximum(canvas.air, 0.4)


def nodule(canvas: Canvas, random: Generator) -> Plane:
    """One to three round opacities of less than 3 cm."""
    density = np.zeros_like(canvas.down)
    for _ in range(random.integers(1, 4)):
        radius = random.uniform(0.02, 0.032)
        density += 0.4 * sigmoid(canvas.ellipse(*canvas.spot(random, (0.4, 0.85), (0.15, 0.9)), radius, radius) / 0.005)
    return density * canvas.air


def pleural_thickening(canvas: Canvas, random: Generator) -> Plane:
    """An opaque band along the lateral wall and over the apex of one lung."""
    side = random.choice([RIGHT, LEFT])
    band = canvas.lung(side) - canvas.lung(side, inset=random.uniform(0.025, 0.04), drop=random.uniform(0.02, 0.045))
    uneven = 1 + 0.3 * canvas.texture(random, 0.08)
    lateral = sigmoid((canvas.lateral(side) - 0.3) / 0.05)
    return 0.175 * np.clip(band, 0, 1) * uneven * lateral * sigmoid((canvas.chest.dome - canvas.down) / 0.03)


def pneumonia(canvas: Canvas, random: Generator) -> Plane:
    """A patchy lobar opacity with air bronchograms."""
    across, down = canvas.spot(random, (0.4, 0.65), (0.55, 0.9))
    lobe = canvas.haze(across, down, random.uniform(0.07, 0.1), random.uniform(0.06, 0.09))
    patches = sigmoid(2 * canvas.texture(random, 0.028) + 0.8)
    x, y = np.abs(canvas.across) - 0.07, canvas.down - canvas.hilum
    bronchi = np.cos(11 * np.arctan2(y, x) + random.uniform(0, 6)) > 0.8
    return canvas.air * lobe * (0.35 * patches - 0.12 * bronchi)


def pneumothorax(canvas: Canvas, random: Generator) -> Plane:
    """A dark rim without vessels outside a thin pleural line, widest at the apex."""
    side = random.choice([RIGHT, LEFT])
    collapsed = canvas.lung(side, inset=random.uniform(0.025, 0.08), drop=random.uniform(0.04, 0.13))
    whole = canvas.lung(side)
    lateral = sigmoid((canvas.lateral(side) - 0.2) / 0.05)
    rim, pleura = whole * (1 - collapsed) * lateral, 4 * collapsed * (1 - collapsed) * whole * lateral
    return 0.08 * pleura - rim * (0.08 + canvas.markings) + 0.02 * collapsed


SIGNS: Mapping[str, Callable[[Canvas, Generator], Plane]] = {
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
