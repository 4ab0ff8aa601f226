import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.core.errors import InputError
from cxr.datasets.boxes import BOX_FILE, COLUMNS, boxes_of_images, read_boxes
from tests.fixtures.project import ROOT
from tools.phantom.dataset import phantom_exams
from tools.phantom.radiograph import render

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
LINE = "00000001_000.png,Infiltrate,256,512,128.0,64.5"


def write_boxes(folder: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    (folder / BOX_FILE).write_bytes((end.join([header, *lines]) + end).encode())
    return folder


@pytest.mark.parametrize(
    ("line", "end", "header"),
    [
        (LINE, "\n", HEADER),
        (LINE + ",,,", "\r\n", HEADER),
        (LINE, "\n", "\ufeff" + HEADER),
        (LINE + "\n", "\n", HEADER),
    ],
)
def test_coordinates_are_fractions_of_the_side_and_infiltrate_is_infiltration(
    tmp_path: Path, line: str, end: str, header: str
) -> None:
    boxes = read_boxes(write_boxes(tmp_path, line, header=header, end=end))
    assert list(boxes.columns) == list(COLUMNS)
    expected = ("00000001_000.png", "Infiltration", 0.25, 0.5, 0.125, 64.5 / 1024)
    assert list(boxes.itertuples(index=False, name=None)) == [expected]


def test_boxes_are_optional(tmp_path: Path) -> None:
    assert list(read_boxes(tmp_path).columns) == list(COLUMNS)
    assert len(read_boxes(tmp_path)) == len(read_boxes(write_boxes(tmp_path))) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a.png,Mass,1,2,3", "5 fields"),
        ("a.png,Mass,1,2,3,4,5", "7 fields"),
        ("a.png,No Finding,1,2,3,4", "unknown finding 'No Finding'"),
        ("a.png,Mas,1,2,3,4", "unknown finding 'Mas'"),
        ("a.png,Mass,1,two,3,4", "'two'"),
        ("a.png,Mass,1,2,0,4", "not inside 1024 x 1024"),
        ("a.png,Mass,1,2,3,-4", "not inside"),
        ("a.png,Mass,-1,2,3,4", "not inside"),
        ("a.png,Mass,1000,2,25,4", "not inside"),
        ("a.png,Mass,1,1000,25,25", "not inside"),
        ("a.png,Mass,nan,2,3,4", "not inside"),
        ("a.png,Mass,1,2,inf,4", "not inside"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"BBox_List_2017\.csv, line 3: .*{problem}.*; fix or remove"):
        read_boxes(write_boxes(tmp_path, LINE, line, LINE))


def test_a_table_with_another_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must start with Image Index,Finding Label"):
        read_boxes(write_boxes(tmp_path, LINE, header="image,label,x,y,w,h"))
    (tmp_path / BOX_FILE).write_bytes(b"")
    with pytest.raises(InputError, match="must start with"):
        read_boxes(tmp_path)
    (tmp_path / BOX_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_boxes(tmp_path)
    (tmp_path / BOX_FILE).write_text("x" * 200_000)
    with pytest.raises(InputError, match="not a CSV table: field larger"):
        read_boxes(tmp_path)


def test_a_pipe_instead_of_the_boxes_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / BOX_FILE)
    with pytest.raises(InputError, match=r"BBox_List_2017\.csv is not a regular file"):
        read_boxes(tmp_path)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 99))
def test_exactly_the_boxes_of_the_given_images_are_kept(in_test: list[bool], seed: int) -> None:
    whole = pd.DataFrame({"image": [f"{number}.png" for number in range(len(in_test))]})
    images = whole.assign(patient=np.arange(len(in_test)) // 2)[in_test]
    chosen = np.random.default_rng(seed).integers(len(in_test) + 2, size=30)  # two images are not in the sample
    boxes = pd.DataFrame({"image": [f"{number}.png" for number in chosen], "class": "Mass", "x": np.arange(30) / 30})
    found = boxes_of_images(images, boxes)
    kept = [*in_test, False, False]
    expected = [(number, position / 30) for position, number in enumerate(chosen) if kept[number]]
    rows = images.index[found["row"]]
    assert list(zip(rows, found["x"], strict=True)) == sorted(expected)
    assert list(found["image"]) == [f"{row}.png" for row in rows]
    assert list(found["patient"]) == [row // 2 for row in rows]
    assert boxes_of_images(images, boxes[:0]).empty


def test_the_boxes_of_a_synthetic_image_do_not_depend_on_its_size() -> None:
    boxes = read_boxes(ROOT / "data/demo")
    exam = next(exam for exam in phantom_exams(362, 50) if "Effusion" in exam.strengths)
    _, rendered = render(exam, 256)
    of_image = boxes[boxes["image"] == f"{exam.patient:08}_{exam.number:03}.png"].set_index("class")
    found = of_image.loc["Effusion", ["x", "y", "width", "height"]].to_numpy(float)
    np.testing.assert_allclose(found, np.array(rendered["Effusion"]) / 1024, atol=2 / 128)
    assert len(boxes) == 1209


@pytest.mark.real_data
def test_the_real_list_has_984_boxes_on_880_images(shared: Path) -> None:
    boxes = read_boxes(shared / "nih-metadata")
    assert (len(boxes), boxes["image"].nunique()) == (984, 880)
    assert boxes["class"].value_counts().to_dict() == {
        "Atelectasis": 180,
        "Effusion": 153,
        "Cardiomegaly": 146,
        "Infiltration": 123,
        "Pneumonia": 120,
        "Pneumothorax": 98,
        "Mass": 85,
        "Nodule": 79,
    }
    assert not boxes.duplicated(["image", "class"]).any()
    official = set((shared / "nih-metadata/test_list.txt").read_text().split())
    assert set(boxes["image"]) <= official
    listed = set((shared / "nih-mini/test_list.txt").read_text().split())
    assert set(read_boxes(shared / "nih-mini")["image"]) <= listed
