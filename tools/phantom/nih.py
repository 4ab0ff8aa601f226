"""Writing phantom exams in the layout of NIH ChestX-ray14."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from cxr.core.files import write_csv
from cxr.core.labels import NO_FINDING
from tools.phantom.exam import EXPOSURE, Exam, map_exams
from tools.phantom.radiograph import Box, render

RGBA_FRACTION = 0.01  # a few of NIH's images have four channels
SCANNERS = ((2500, 2048, 0.168), (2992, 2991, 0.143), (2048, 2500, 0.168))  # width, height, pixel spacing in mm

TABLE_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOX_LABELS = {  # NIH's labels of the findings that have boxes
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
    """Write the images, the table, the boxes and the two lists; `test` has the patients of the test list."""
    (folder / "images").mkdir()
    boxes = map_exams(partial(write_image, folder=folder / "images", size=size), exams)
    write_csv(image_table(exams), folder / "Data_Entry_2017_v2020.csv")
    write_lines([BOX_HEADER, *box_rows(exams, boxes)], folder / "BBox_List_2017.csv")
    write_lines([image_name(exam) for exam in exams if exam.patient not in test], folder / "train_val_list.txt")
    write_lines([image_name(exam) for exam in exams if exam.patient in test], folder / "test_list.txt")


def image_name(exam: Exam) -> str:
    """Return the file name of an image, which has the patient and the number of the image."""
    return f"{exam.patient:08}_{exam.number:03}.png"


def write_image(exam: Exam, folder: Path, size: int) -> dict[str, Box]:
    """Render one image into `folder`; return the box of each of its findings."""
    pixels, boxes = render(exam, size)
    image = Image.fromarray(pixels)
    if exam.random(EXPOSURE, exam.number, 1).random() < RGBA_FRACTION:
        image = image.convert("RGBA")
    image.save(folder / image_name(exam), optimize=True)
    return boxes


def image_table(exams: list[Exam]) -> pd.DataFrame:
    """Return NIH's table, with one row for each exam."""
    rows = []
    for exam in exams:
        labels = "|".join(exam.strengths) or NO_FINDING
        width, height, spacing = SCANNERS[exam.patient % len(SCANNERS)]
        metadata = (exam.number, exam.patient, exam.age, exam.sex, exam.view)
        rows.append((image_name(exam), labels, *metadata, width, height, spacing, spacing))
    return pd.DataFrame(rows, columns=TABLE_HEADER.split(","))


def box_rows(exams: list[Exam], boxes: list[dict[str, Box]]) -> Iterable[str]:
    """Yield the lines of NIH's list of boxes, for the findings in `BOX_LABELS`."""
    for exam, found in zip(exams, boxes, strict=True):
        for finding in (finding for finding in found if finding in BOX_LABELS):
            yield ",".join((image_name(exam), BOX_LABELS[finding], *(f"{number:g}" for number in found[finding])))


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write `lines`, each with a newline."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
