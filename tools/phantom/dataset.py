"""Generate a phantom data set: synthetic chest radiographs in the layout of NIH ChestX-ray14 or CheXpert.

    python -m tools.phantom data/demo
    python -m tools.phantom data/chexpert-phantom --layout chexpert

An image depends only on the seed, its patient and its number, so the same arguments give the same files. As in NIH's
data set, whose labels were extracted from reports, some findings are invisible: the fraction `FAINT_FRACTION` of the
signs is too weak. Labels are not changed at random.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator

from cxr.core.errors import InputError
from cxr.core.files import atomic_write
from cxr.core.labels import FINDINGS
from tools.phantom import chexpert, nih
from tools.phantom.exam import HISTORY, Exam, stream_of

TEST_FRACTION = 0.23  # of the images
ILL_FRACTION = 0.6  # of the patients
PERSISTENCE = 0.85  # probability that an image shows a finding of the patient's illness
INCIDENTAL_FRACTION = 0.16  # of the images have a finding unrelated to the illness
FAINT_FRACTION = 0.1  # of the signs are invisible
MAX_IMAGES = 12  # of one patient

# Illnesses: the weight in random choices, and the probability of each finding.
ILLNESSES: tuple[tuple[float, dict[str, float]], ...] = (
    (2.8, {"Cardiomegaly": 0.8, "Edema": 0.75, "Effusion": 0.5}),
    (3.0, {"Infiltration": 0.7, "Pneumonia": 0.6, "Consolidation": 0.6, "Effusion": 0.2}),
    (2.6, {"Emphysema": 0.8, "Pneumothorax": 0.8, "Infiltration": 0.3}),
    (2.4, {"Mass": 0.75, "Nodule": 0.75, "Atelectasis": 0.3, "Effusion": 0.2}),
    (2.4, {"Fibrosis": 0.8, "Pleural_Thickening": 0.8, "Infiltration": 0.3}),
    (1.75, {"Hernia": 0.9, "Atelectasis": 0.45}),
    (1.5, {"Atelectasis": 0.7, "Effusion": 0.6, "Infiltration": 0.4}),
)

LAYOUTS = {"nih": nih.write, "chexpert": chexpert.write}
NOTICES = {
    "nih": """\
Synthetic images: drawn by a program in the layout of NIH ChestX-ray14. No patient exists.

    python -m tools.phantom OUT --seed {seed} --images {images} --size {size}
""",
    "chexpert": """\
Synthetic images: drawn by a program in the layout of CheXpert. No patient exists.

    python -m tools.phantom OUT --seed {seed} --images {images} --size {size} --layout chexpert
""",
}

EXAMPLES = """examples:
  python -m tools.phantom data/phantom --images 200
  python -m tools.phantom data/chexpert-phantom --layout chexpert
"""


def main() -> None:
    """Generate the data set given by the command line."""
    args = command_line().parse_args()
    write_phantom(args.out, args.seed, args.images, args.size, args.layout)
    print(f"{args.out}: {args.images} synthetic images")


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser; the defaults are those of data/demo."""
    parser = argparse.ArgumentParser(
        "python -m tools.phantom",
        description=str(__doc__).partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="output folder; must be new or empty")
    parser.add_argument("--seed", type=int, default=362, help="random seed (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1200, help="number of images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="nih", help="layout of the files")
    return parser


def write_phantom(out: Path, seed: int, images: int, size: int, layout: str = "nih") -> None:
    """Write the data set to `out`; if an error occurs, nothing is written.

    Args:
        out: the output folder, new or empty.
        seed: seed of the random numbers, at least 0.
        images: number of images, at least 1.
        size: side of the images, 32 to 1024 pixels.
        layout: a key of `LAYOUTS`.

    Raises:
        InputError: if `out` is not empty or a number is out of range.
    """
    check_arguments(out, seed, images, size)
    exams = phantom_exams(seed, images)
    with atomic_write(out) as folder:
        folder.mkdir(parents=True)
        LAYOUTS[layout](exams, test_patients(exams, seed), folder, size)
        notice = NOTICES[layout].format(seed=seed, images=images, size=size)
        (folder / "SYNTHETIC.txt").write_text(notice, encoding="utf-8")


def check_arguments(out: Path, seed: int, images: int, size: int) -> None:
    """Raise InputError if `out` is not empty or a number is out of range."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; choose another one or remove it")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    if images < 1:
        raise InputError(f"--images {images}: must be 1 or more")
    if not 32 <= size <= 1024:
        raise InputError(f"--size {size}: must be from 32 to 1024 pixels")


def phantom_exams(seed: int, images: int) -> list[Exam]:
    """Return the first `images` exams of consecutive patients, starting with 1."""
    exams: list[Exam] = []
    while len(exams) < images:
        patient = exams[-1].patient + 1 if exams else 1
        exams += patient_exams(seed, patient)
    return exams[:images]


def patient_exams(seed: int, patient: int) -> list[Exam]:
    """Return the exams of one patient. Ill patients have slightly more exams and more AP images."""
    random = stream_of(HISTORY, seed, patient)
    sex, age = str(random.choice(["M", "F"])), random.uniform(16, 82)
    usual = illness(random) if random.random() < ILL_FRACTION else {}
    exams = []
    for number in range(min(MAX_IMAGES, 1 + int((0.65 if usual else 0.55) * random.exponential() ** 2))):
        strengths = findings(usual, random)
        view = "AP" if random.random() < (0.45 if strengths else 0.35) else "PA"
        exams.append(Exam(seed, patient, number, int(age + 0.3 * number), sex, view, strengths))
    return exams


def illness(random: Generator) -> dict[str, float]:
    """Return random findings of an ill patient, with their severities in [0, 1]."""
    weights = np.array([weight for weight, _ in ILLNESSES])
    count = random.choice([1, 2], p=[0.5, 0.5])
    chosen = random.choice(len(ILLNESSES), count, replace=False, p=weights / weights.sum())
    likely = [pair for index in chosen for pair in ILLNESSES[index][1].items()]
    return {finding: random.uniform(0.35, 1) for finding, chance in likely if random.random() < chance}


def findings(usual: dict[str, float], random: Generator) -> dict[str, float]:
    """Return the strength of each finding of one image, in the order of `FINDINGS`.

    An image shows most of the findings `usual` of the patient, and may show an incidental one.
    """
    present = {finding: severity for finding, severity in usual.items() if random.random() < PERSISTENCE}
    if random.random() < INCIDENTAL_FRACTION:
        present.setdefault(str(random.choice(FINDINGS)), random.uniform(0.35, 1))
    return {finding: strength(present[finding], random) for finding in FINDINGS if finding in present}


def strength(severity: float, random: Generator) -> float:
    """Return the random strength of a finding in one image, in (0, 1]; a small fraction is invisible."""
    return 0.04 if random.random() < FAINT_FRACTION else float(np.clip(random.normal(severity, 0.12), 0.25, 1))


def test_patients(exams: list[Exam], seed: int) -> set[int]:
    """Return random patients who together have at least the fraction `TEST_FRACTION` of the images."""
    counts = pd.Series([exam.patient for exam in exams]).value_counts(sort=False)
    shuffled = counts.sample(frac=1, random_state=stream_of(HISTORY, seed))
    return set(shuffled.index[shuffled.cumsum() - shuffled < TEST_FRACTION * len(exams)])
