"""Phantom exams in the layout of NIH ChestX-ray14."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from cxr.core.files import write_csv
from cxr.core.labels import NO_FINDING
from tools.phantom.exam import EXPOSURE, Exam, map_exams
from tools.phantom.radiograph import Box, draw

RGBA_SHARE = 0.01  # NIH stores a few of its images with four channels
SCANNERS = ((2500, 2048, 0.168), (2992, 2991, 0.143), (2048, 2500, 0.168))  # width, height, pixel spacing in mm

TABLE_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOXED = {  # NIH's word for each finding that it boxed
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Effusion": "Effusion",
    "Infiltration": "Infiltrate",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}


def write(exams: list[Exam], test: set[int], folder: Path, size: int) -> None:
    """Write images, table, boxes, and the two lists, of which `test` are the patients of one."""
    (folder / "images").mkdir()
    boxes = map_exams(partial(write_image, folder=folder / "images", size=size), exams)
    write_csv(table(exams), folder / "Data_Entry_2017_v2020.csv")
    write_lines([BOX_HEADER, *box_rows(exams, boxes)], folder / "BBox_List_2017.csv")
    write_lines([name(exam) for exam in exams if exam.patient not in test], folder / "train_val_list.txt")
    write_lines([name(exam) for exam in exams if exam.patient in test], folder / "test_list.txt")


def name(exam: Exam) -> str:
    """File name of an image, as NIH's: patient and number of the image."""
    return f"{exam.patient:08}_{exam.number:03}.png"


def write_image(exam: Exam, folder: Path, size: int) -> dict[str, Box]:
    """Draw one image into `folder`; the box of each of its findings."""
    pixels, boxes = draw(exam, size)
    image = Image.fromarray(pixels)
    if exam.random(EXPOSURE, exam.number, 1).random() < RGBA_SHARE:
        image = image.convert("RGBA")
    image.save(folder / name(exam), optimize=True)
    return boxes


def table(exams: list[Exam]) -> pd.DataFrame:
    """NIH's table of images, one row an exam."""
    rows = []
    for exam in exams:
        labels = "|".join(exam.strengths) or NO_FINDING
        width, height, spacing = SCANNERS[exam.patient % len(SCANNERS)]
        person = (exam.number, exam.patient, exam.age, exam.sex, exam.view)
        rows.append((name(exam), labels, *person, width, height, spacing, spacing))
    return pd.DataFrame(rows, columns=TABLE_HEADER.split(","))


def box_rows(exams: list[Exam], boxes: list[dict[str, Box]]) -> Iterable[str]:
    """A line of NIH's list of boxes for each positive of the findings that NIH boxed."""
    for exam, found in zip(exams, boxes, strict=True):
        for finding in (finding for finding in found if finding in BOXED):
            yield ",".join((name(exam), BOXED[finding], *(f"{number:g}" for number in found[finding])))


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write `lines`, each with a line feed."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
