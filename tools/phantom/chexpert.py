"""Writing phantom exams in the layout of CheXpert: two tables, a folder for each study, uncertain and empty labels."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cxr.core.files import write_csv
from cxr.datasets.chexpert import SHARED
from tools.phantom.exam import REPORT, Exam, map_exams
from tools.phantom.radiograph import render

ROOT = "CheXpert-v1.0-small"  # first part of the paths in the tables
HEADER = """Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,
Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,
Support Devices"""
COLUMNS = HEADER.replace("\n", "").split(",")
HEIGHT, WIDTH, LATERAL_WIDTH = 0.82, 1.0, 0.6  # fractions of the size; the images are not square
LATERAL_FRACTION = 0.15  # of the studies have a lateral view
MIN_CERTAIN_STRENGTH = 0.1  # weaker findings are uncertain
UNCERTAIN_FRACTION = 0.1  # of the positives are uncertain
NEGATIVE_FRACTION = 0.3  # of the negatives are 0, the others are empty


def write(exams: list[Exam], test: set[int], folder: Path, size: int) -> None:
    """Write valid.csv with the patients in `test` and train.csv with the others, and the images of both."""
    for part in ("train", "valid"):
        selected = [exam for exam in exams if (exam.patient in test) == (part == "valid")]
        rows = map_exams(partial(write_study, folder=folder, part=part, size=size), selected)
        write_csv(pd.DataFrame([row for study in rows for row in study], columns=COLUMNS), folder / f"{part}.csv")


def write_study(exam: Exam, folder: Path, part: str, size: int) -> list[dict[str, Any]]:
    """Write the frontal and, for some exams, the lateral image of one exam; return their rows of the table."""
    pixels, _ = render(exam, size)
    study = f"{part}/patient{exam.patient:05}/study{exam.number + 1}"
    (folder / study).mkdir(parents=True)
    views = [("view1_frontal", WIDTH)]
    if exam.random(REPORT, exam.number, 1).random() < LATERAL_FRACTION:
        # The lateral view is only a narrowed frontal one: it exists to test that lateral views are excluded.
        views.append(("view2_lateral", LATERAL_WIDTH))
    rows = []
    for view, width in views:
        image = Image.fromarray(pixels).resize((round(size * width), round(size * HEIGHT)), Image.Resampling.BILINEAR)
        image.save(folder / study / f"{view}.jpg", quality=90)
        frontal = view.endswith("frontal")
        metadata = {
            "Path": f"{ROOT}/{study}/{view}.jpg",
            "Sex": {"M": "Male", "F": "Female"}[exam.sex],
            "Age": exam.age,
            "Frontal/Lateral": "Frontal" if frontal else "Lateral",
            "AP/PA": exam.view if frontal else "",
        }
        rows.append({**metadata, **label_values(exam, is_certain=part == "valid")})
    return rows


def label_values(exam: Exam, *, is_certain: bool) -> dict[str, float]:
    """Return the label of each class: 1, 0, -1 (uncertain) or no value; with `is_certain` only 1 or 0."""
    random, values = exam.random(REPORT, exam.number), {}
    for source, target in SHARED.items():
        strength, chance = exam.strengths.get(target, 0.0), random.random()
        if source == "No Finding":
            is_positive, is_uncertain, is_stated = not exam.strengths, False, False
        else:
            is_positive = strength > 0
            is_uncertain = strength < MIN_CERTAIN_STRENGTH or chance < UNCERTAIN_FRACTION
            is_stated = chance < NEGATIVE_FRACTION
        if is_certain or is_stated or is_positive:
            values[source] = -1.0 if is_positive and is_uncertain and not is_certain else float(is_positive)
    return values
