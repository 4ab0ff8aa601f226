"""X-ray density of the tissues of a normal chest.

Every function returns a `Plane` of densities, on a scale from air (0) to the abdomen (about 1).
"""

import numpy as np
from numpy.random import Generator

from tools.phantom.anatomy import LEFT, RIGHT
from tools.phantom.canvas import Canvas, Plane, sigmoid


def normal_chest(canvas: Canvas, random: Generator) -> Plane:
    """All tissues, minus the density that the air in the lungs replaces."""
    tissue = body(canvas) + midline(canvas) + soft_shadows(canvas, random)
    return tissue - canvas.chest.air * canvas.air + ribs(canvas) + shoulders(canvas) + canvas.markings


def body(canvas: Canvas) -> Plane:
    """Soft tissue: neck, shoulders, chest wall and the abdomen below the diaphragm."""
    chest, side = canvas.chest, np.abs(canvas.across)
    torso = chest.width + chest.wall + 0.22 * np.exp(-(((canvas.down - chest.apex - 0.03) / 0.17) ** 2))
    shoulder = canvas.down - (chest.apex - 0.07 + 0.45 * np.maximum(side - 0.11, 0) ** 1.3)
    outline = canvas.inside(0.5 * (torso - side)) * np.maximum(canvas.inside(shoulder), canvas.inside(0.11 - side))
    thickness = 0.62 + 0.2 * np.sqrt(np.clip((torso - side) / 0.3, 0, 1)) + 1.2 * (chest.wall - 0.05)
    below = canvas.inside(canvas.down - np.where(canvas.across < 0, canvas.diaphragm(RIGHT), canvas.diaphragm(LEFT)))
    return outline * (thickness + 0.16 * below)


def midline(canvas: Canvas) -> Plane:
    """The spine with its discs, the hila, and the air in the trachea."""
    x, y = canvas.across, canvas.down
    discs = 0.02 * np.cos(2 * np.pi * y / (0.8 * canvas.chest.rib_spacing))
    spine = canvas.inside(0.6 * (0.04 - np.abs(x))) * (0.09 + discs)
    trachea = canvas.inside(0.019 - np.abs(x + 0.004)) * sigmoid((canvas.chest.apex + 0.22 - y) / 0.01)
    hila = canvas.haze(-0.085, canvas.hilum + 0.015, 0.02, 0.045) + canvas.haze(0.085, canvas.hilum - 0.01, 0.02, 0.04)
    return spine - 0.14 * trachea + 0.11 * hila


def ribs(canvas: Canvas) -> Plane:
    """Nearly horizontal posterior arcs, and fainter anterior arcs that descend towards the sternum."""
    chest, side = canvas.chest, np.abs(canvas.across)
    lateral = side / (chest.width + 0.015)
    cage = canvas.inside(chest.width + 0.012 - side) * sigmoid((canvas.down - chest.apex) / 0.01)
    cage *= np.maximum(canvas.air, 0.35) * sigmoid((lateral - 0.12) / 0.03)  # low contrast outside the lungs
    posterior = canvas.down + 0.05 * np.sin(np.pi * np.minimum(lateral, 1)) - chest.rib_slope * lateral**2
    anterior = canvas.down - 0.17 * (1 - np.minimum(lateral, 1)) ** 0.8 - 0.02
    bony = sigmoid((lateral - 0.4) / 0.04)  # the cartilage near the sternum is invisible
    arcs = _arc(posterior, chest.rib_spacing) + 0.5 * _arc(anterior, chest.rib_spacing) * bony
    return chest.rib_density * cage * arcs * sigmoid((0.93 - canvas.down) / 0.02)


def _arc(height: Plane, spacing: float) -> Plane:
    """Bands of the width 0.4 `spacing` with dense borders, like cortical bone."""
    phase = np.abs((height / spacing) % 1 - 0.5)
    return sigmoid((0.2 - phase) / 0.04) * (0.7 + 0.5 * (phase / 0.2) ** 2)


def shoulders(canvas: Canvas) -> Plane:
    """Clavicles, humeral heads and scapulae."""
    chest, side = canvas.chest, np.abs(canvas.across)
    lateral = (side - 0.035) / 0.4
    collar = canvas.down - (chest.apex + 0.075 - 0.09 * lateral - 0.018 * np.sin(2 * np.pi * lateral))
    clavicle = canvas.line(collar, 0.009) * canvas.inside(side - 0.035) * canvas.inside(0.43 - side)
    humerus = canvas.inside(canvas.pair(0.49, chest.apex + 0.06, 0.055, 0.06))
    blade = canvas.pair(0.375, chest.apex + 0.17, 0.04, 0.13, 0.25)
    return 0.15 * clavicle + 0.12 * humerus + 0.06 * canvas.inside(blade) + 0.03 * canvas.line(blade, 0.005)


def soft_shadows(canvas: Canvas, random: Generator) -> Plane:
    """Breasts, the gastric bubble below the left dome, and bowel gas."""
    chest = canvas.chest
    breasts = canvas.pair(0.2, chest.dome - 0.06, 0.15, 0.15)
    density = chest.breast * canvas.inside(breasts) * np.clip(0.4 + 6 * breasts, 0, 1)
    if chest.bubble:
        top = chest.dome + chest.dome_step + 0.055
        air = canvas.inside(canvas.ellipse(0.15, top, 1.5 * chest.bubble, chest.bubble))
        density -= 0.28 * air * canvas.inside(top + 0.5 * chest.bubble - canvas.down)
    gas = canvas.texture(random, 0.07) * sigmoid((canvas.down - chest.dome - 0.12) / 0.02)
    return density - 0.05 * np.maximum(gas - 0.5, 0)
