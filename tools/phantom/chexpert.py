"""Phantom exams in the layout of CheXpert: two tables, a folder for each study, and reports that leave much open."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cxr.core.files import write_csv
from cxr.datasets.chexpert import SHARED
from tools.phantom.exam import REPORT, Exam, map_exams
from tools.phantom.radiograph import draw

ROOT = "CheXpert-v1.0-small"  # what every path in the tables starts with
HEADER = """Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,
Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,
Support Devices"""
COLUMNS = HEADER.replace("\n", "").split(",")
HEIGHT, WIDTH, LATERAL_WIDTH = 0.82, 1.0, 0.6  # shares of the size: the images are not square
LATERAL_SHARE = 0.15  # of the studies have a lateral view
FAINTEST = 0.1  # strength below which a report has doubts
DOUBTED, DENIED = 0.1, 0.3  # shares of the positives that are called uncertain, and of the negatives that are named


def write(exams: list[Exam], test: set[int], folder: Path, size: int) -> None:
    """Write valid.csv and its images for the patients in `test`, train.csv and its images for the others."""
    for part in ("train", "valid"):
        ours = [exam for exam in exams if (exam.patient in test) == (part == "valid")]
        rows = map_exams(partial(write_study, folder=folder, part=part, size=size), ours)
        write_csv(pd.DataFrame([row for study in rows for row in study], columns=COLUMNS), folder / f"{part}.csv")


def write_study(exam: Exam, folder: Path, part: str, size: int) -> list[dict[str, Any]]:
    """Write the images of one exam, a frontal view and perhaps a lateral one; their rows of the table."""
    pixels, _ = draw(exam, size)
    study = f"{part}/patient{exam.patient:05}/study{exam.number + 1}"
    (folder / study).mkdir(parents=True)
    views = [("view1_frontal", WIDTH)]
    if exam.random(REPORT, exam.number, 1).random() < LATERAL_SHARE:
        # Nobody has drawn a lateral view: it is the frontal one, narrowed. It is only there to be left out.
        views.append(("view2_lateral", LATERAL_WIDTH))
    rows = []
    for view, width in views:
        image = Image.fromarray(pixels).resize((round(size * width), round(size * HEIGHT)), Image.Resampling.BILINEAR)
        image.save(folder / study / f"{view}.jpg", quality=90)
        frontal = view.endswith("frontal")
        about = {
            "Path": f"{ROOT}/{study}/{view}.jpg",
            "Sex": {"M": "Male", "F": "Female"}[exam.sex],
            "Age": exam.age,
            "Frontal/Lateral": "Frontal" if frontal else "Lateral",
            "AP/PA": exam.view if frontal else "",
        }
        rows.append({**about, **report(exam, is_certain=part == "valid")})
    return rows


def report(exam: Exam, *, is_certain: bool) -> dict[str, float]:
    """What a report says of the classes: 1, 0, -1 (uncertain) or nothing; of a certain one, 1 or 0 of each."""
    random, found = exam.random(REPORT, exam.number), {}
    for theirs, ours in SHARED.items():
        strength, chance = exam.strengths.get(ours, 0.0), random.random()
        if theirs == "No Finding":
            is_there, doubt, is_named = not exam.strengths, False, False
        else:
            is_there, doubt, is_named = strength > 0, strength < FAINTEST or chance < DOUBTED, chance < DENIED
        if is_certain or is_named or is_there:
            found[theirs] = -1.0 if is_there and doubt and not is_certain else float(is_there)
    return found
