"""The measures of a chest: how patients differ, and how one patient's images do.

Lengths are in sides of the image, about 35 cm, counted from its top or from the midline.
"""

from dataclasses import dataclass, replace

from numpy.random import Generator

from tools.phantom.exam import ANATOMY, Exam

RIGHT, LEFT = -1, 1  # of the patient


@dataclass(frozen=True)
class Chest:
    """The measures of one chest: lengths in sides of the image, densities where air is 0 and the abdomen about 1."""

    apex: float  # top of the lungs, from the top of the image
    dome: float  # top of the right hemidiaphragm, from the top of the image
    dome_step: float  # how much lower the left one is
    angle_depth: float  # depth of the costophrenic angles below the domes
    width: float  # of one lung, from the midline to the lateral wall
    wall: float  # thickness of the chest wall
    heart: float  # transverse diameter, nearly
    heart_tilt: float  # radians
    knob: float  # radius of the aortic knob
    rib_spacing: float
    rib_slope: float  # how much lower a posterior rib is at the lateral wall than at the spine
    rib_density: float
    vessels: float  # density of the vascular markings
    air: float  # density that the lungs take away
    breast: float  # density of the breast shadows, 0 if there are none
    bubble: float  # half the height of the gastric bubble, 0 if there is none
    pacemaker: bool
    raised: float = 0.0  # how far the right (negative) or left hemidiaphragm is pulled up


def patient_chest(exam: Exam) -> Chest:
    """The anatomy that all images of a patient share, as an erect PA image shows it; only the aortic knob ages."""
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
    supine = view == "AP"  # lying: the heart is far from the film, the domes stand high, no gas collects under the left
    breath = random.normal(-0.025 if supine else 0.0, 0.012)
    heart = chest.heart * random.normal(1.06 if supine else 1.0, 0.015)
    return replace(chest, dome=chest.dome + breath, heart=heart, bubble=0.0 if supine else chest.bubble)
