"""Dimensions of a chest: their variation between patients, and between the images of one patient.

Lengths are fractions of the side of the image, about 35 cm, from its top or from the midline.
"""

from dataclasses import dataclass, replace

from numpy.random import Generator

from tools.phantom.exam import ANATOMY, Exam

RIGHT, LEFT = -1, 1  # of the patient


@dataclass(frozen=True)
class Chest:
    """Dimensions of one chest: lengths as fractions of the side, densities from 0 (air) to about 1 (abdomen)."""

    apex: float  # top of the lungs, from the top of the image
    dome: float  # top of the right hemidiaphragm, from the top of the image
    dome_step: float  # how much lower the dome of the left hemidiaphragm is
    angle_depth: float  # depth of the costophrenic angles below the domes
    width: float  # of one lung, from the midline to the lateral wall
    wall: float  # thickness of the chest wall
    heart: float  # approximate transverse diameter
    heart_tilt: float  # radians
    knob: float  # radius of the aortic knob
    rib_spacing: float
    rib_slope: float  # how much lower a posterior rib is at the lateral wall than at the spine
    rib_density: float
    vessels: float  # density of the vascular markings
    air: float  # density that the air in the lungs subtracts
    breast: float  # density of the breast shadows, 0 if absent
    bubble: float  # half the height of the gastric bubble, 0 if absent
    pacemaker: bool
    raised: float = 0.0  # elevation of the right (negative) or left (positive) hemidiaphragm


def patient_chest(exam: Exam) -> Chest:
    """Return the anatomy of a patient in an erect PA image. Only the aortic knob depends on the age."""
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


def project(chest: Chest, view: str, random: Generator) -> Chest:
    """Return `chest` as projected in one image: AP magnifies the heart, and breathing moves the domes."""
    supine = view == "AP"  # the heart is far from the detector, the domes are high, and no gas is below the left one
    breath = random.normal(-0.025 if supine else 0.0, 0.012)
    heart = chest.heart * random.normal(1.06 if supine else 1.0, 0.015)
    return replace(chest, dome=chest.dome + breath, heart=heart, bubble=0.0 if supine else chest.bubble)
