import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS, label_matrix
from cxr.datasets.nih import read_lists, read_table
from tests.fixtures.nih_folder import HEADER

COUNTS = [11559, 2776, 4667, 2303, 13317, 2516, 1686, 227, 19894, 5782, 60361, 6331, 3385, 1431, 5302]
REST = "M,PA,2682,2749,0.143,0.143"
FIRST_RELEASE = f"""{HEADER},
00000001_000.png,Cardiomegaly|Hernia,000,00001,058Y,{REST},
00000001_001.png,No Finding,001,00001,006M,{REST},
00000002_000.png,Pleural_Thickening,000,00002,012D,{REST},
00000003_000.png,Mass,000,00003,414Y,{REST},
"""
KAGGLE = f"""{HEADER},
00000001_000.png,Cardiomegaly|Hernia,0,1,58,{REST},
00000001_001.png,No Finding,1,1,0,{REST},
00000002_000.png,Pleural_Thickening,0,2,0,{REST},
00000003_000.png,Mass,0,3,148,{REST},
"""
# Not sorted, like the published table.
V2020 = f"""{HEADER}
00000003_000.png,Mass,0,3,121,{REST}
00000001_001.png,No Finding,1,1,0,{REST}
00000001_000.png,Hernia|Cardiomegaly,0,1,58,{REST}
00000002_000.png,Pleural_Thickening,0,2,0,{REST}
"""


def read_text(folder: Path, text: str) -> pd.DataFrame:
    (folder / "Data_Entry_2017.csv").write_text(text, encoding="utf-8")
    return read_table(folder)


NIH_TODAY = V2020.replace("Patient Gender", "Patient Sex")


@pytest.mark.parametrize("text", [FIRST_RELEASE, KAGGLE, V2020, NIH_TODAY], ids=["2017", "kaggle", "v2020", "today"])
def test_the_three_published_versions_are_the_same_rows(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_text(tmp_path, text)
    expected = [
        ("00000001_000.png", 1, {"Cardiomegaly", "Hernia"}),
        ("00000001_001.png", 1, {"No Finding"}),
        ("00000002_000.png", 2, {"Pleural_Thickening"}),
        ("00000003_000.png", 3, {"Mass"}),
    ]
    assert list(table.columns) == ["image", "patient", "age", "sex", "view", *CLASSES]
    for row, (image, patient, labels) in zip(table.to_dict("records"), expected, strict=True):
        assert (row["image"], row["patient"], row["sex"], row["view"]) == (image, patient, "M", "PA")
        assert {name for name in CLASSES if row[name] == 1} == labels
    assert list(table["age"].astype(object).fillna("")) == [58, 0, 0, ""]
    assert "1 ages above 120 years are treated as missing" in capsys.readouterr().err


def test_months_and_days_are_whole_years(tmp_path: Path) -> None:
    ages = [(f"{months:03d}M", months // 12) for months in range(1000)] + [("364D", 0), ("366D", 1), ("120Y", 120)]
    lines = [f"{number:08d}_000.png,Mass,0,1,{age},{REST}" for number, (age, _) in enumerate(ages)]
    table = read_text(tmp_path, "\n".join([HEADER, *lines]))
    assert list(table["age"]) == [years for _, years in ages]


def row(image: str = "a.png", labels: str = "Mass", patient: str = "1", age: str = "57") -> str:
    return f"{image},{labels},0,{patient},{age},{REST}\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (row("b.png") + row(labels="Mass|Cold"), "unknown label 'Cold' of image a.png"),
        (row(labels=""), "unknown label '' of image a.png"),
        (row(labels="No Finding|Mass"), "No Finding combined with other labels of image a.png"),
        (row("../a.png"), r"1 invalid image names: '\.\./a\.png'"),
        (row() + row("=cmd.png"), "1 invalid image names: '=cmd.png'"),
        (row() + row("images/a.png"), "invalid image 'images/a.png'"),
        (row() + row("b.png") + row(), "1 images are listed more than once: a.png"),
        (row(patient=""), "Patient ID '' of image a.png is not an integer"),
        (row(patient="x1"), "Patient ID 'x1' of image a.png is not an integer"),
        (row(patient="1.5"), "Patient ID '1.5' of image a.png"),
        (row(patient="inf"), "Patient ID 'inf' of image a.png"),
        (row(patient="9" * 20), "Patient ID '9+' of image a.png"),
        (row(age="-1"), "invalid Patient Age '-1' of image a.png"),
        (row(age="old"), "invalid Patient Age 'old' of image a.png"),
        (row(age="9" * 23), "Patient Age .9+. of image a.png"),
        ("", "a header but no rows"),
        (row() + "b.png,Ma", "unknown label 'Ma' of image b.png"),
        (row() + "b.png,Mass,0,2,5", "b.png|not a CSV table"),
        (row() + 'b.png,"Mass', "not a CSV table|unknown label|Patient"),
        (row() + row("b.png").replace("\n", ",1,2\n"), "b.png|not a CSV table"),
    ],
)
def test_an_invalid_row_is_reported(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_text(tmp_path, f"{HEADER}\n{rows}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a CSV table"),
        (b"\x89PNG\xff\xfe\x00", "is not text in UTF-8"),
        (V2020.encode("utf-16"), "is not text in UTF-8"),
        (V2020.replace("View Position", "Patient Sex").encode(), "lacks the columns View Position"),
        (
            V2020.replace("Follow-up #", "Patient Sex").encode(),
            "has the columns Patient Sex, Patient Gender, which mean",
        ),
        (
            b"Image Index,Patient ID\na.png,1\n",
            "lacks the columns Finding Labels, Patient Age, Patient Gender, View Position",
        ),
        (b"<html>not found</html>\n", "lacks the columns Image Index"),
    ],
)
def test_a_file_that_is_not_a_table_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt"])
def test_a_pipe_or_device_instead_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    for other in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / other).write_text("")
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    read = read_table if name.endswith("csv") else read_lists
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        read(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=f"{name} is not a regular file"):
        read(tmp_path)
    path.unlink()
    path.symlink_to(name)
    with pytest.raises(OSError, match=f"symbolic links: .*{name}"):
        read(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "train_val_list.txt").write_text("a.png\n", encoding="utf-8-sig")
    (tmp_path / "test_list.txt").write_text("b.png\n", encoding="utf-8-sig")
    assert list(read_lists(tmp_path)["image"]) == ["a.png", "b.png"]
    (tmp_path / "Data_Entry_2017.csv").write_text(V2020, encoding="utf-8-sig")
    assert len(read_table(tmp_path)) == 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_list_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "train_val_list.txt").write_text("a.png\n")
    (tmp_path / "test_list.txt").write_text("b.png\n", encoding=encoding)
    with pytest.raises(InputError, match=r"test_list\.txt is not text in UTF-8"):
        read_lists(tmp_path)


def test_a_folder_needs_exactly_one_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has neither NIH's table Data_Entry_2017\*\.csv nor CheXpert's"):
        read_table(tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(V2020)
    with pytest.raises(InputError, match=r"several tables, Data_Entry_2017\.csv, Data_Entry_2017_v2020\.csv"):
        read_text(tmp_path, KAGGLE)


def test_without_official_lists_the_table_is_empty(tmp_path: Path) -> None:
    lists = read_lists(tmp_path)
    assert lists.empty
    assert list(lists.columns) == ["image", "list"]


def test_both_official_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "train_val_list.txt").write_text("b.png\r\na.png\r\n")
    (tmp_path / "test_list.txt").write_text("c.png")
    assert read_lists(tmp_path).to_numpy().tolist() == [
        ["b.png", "train_val"],
        ["a.png", "train_val"],
        ["c.png", "test"],
    ]


@pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
def test_a_single_official_list_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a.png\n")
    with pytest.raises(InputError, match=f"has {name} but not the other"):
        read_lists(tmp_path)


@pytest.mark.parametrize(("train_val", "test"), [("a.png\nb.png", "b.png"), ("b.png\nb.png", "c.png")])
def test_an_image_that_is_listed_twice_is_rejected(tmp_path: Path, train_val: str, test: str) -> None:
    (tmp_path / "train_val_list.txt").write_text(train_val)
    (tmp_path / "test_list.txt").write_text(test)
    with pytest.raises(InputError, match=r"1 images are listed more than once: b\.png"):
        read_lists(tmp_path)


@pytest.mark.real_data
def test_the_real_table_has_the_published_counts(real_table: pd.DataFrame) -> None:
    assert len(real_table) == 112_120
    assert real_table["patient"].nunique() == 30_805
    assert real_table[list(CLASSES)].sum().tolist() == COUNTS
    assert real_table["sex"].value_counts().to_dict() == {"M": 63_340, "F": 48_780}
    assert real_table["view"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    assert (real_table["age"].min(), real_table["age"].max()) == (0, 95)
    assert real_table["image"].is_monotonic_increasing
    # The table has 836 different strings; some differ in the order of the labels only.
    assert len(np.unique(label_matrix(real_table), axis=0)) == 801
    assert (real_table["No Finding"] == 1 - real_table[list(FINDINGS)].max(axis=1)).all()


@pytest.mark.real_data
def test_the_real_lists_cover_the_real_table(shared: Path, real_table: pd.DataFrame) -> None:
    lists = read_lists(shared / "nih-metadata")
    assert lists["list"].value_counts().to_dict() == {"train_val": 86_524, "test": 25_596}
    assert set(lists["image"]) == set(real_table["image"])
