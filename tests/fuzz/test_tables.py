"""Tables and lists with hostile cells, columns and encodings, and with mutated bytes, given to their readers."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import SPLITS, read_official, read_sample, read_sample_with_split, write_sample
from cxr.datasets import chexpert, nih
from cxr.datasets.boxes import BOX_FILE, read_boxes
from cxr.datasets.params import CheXpert
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fuzz.harness import fuzz, outcome
from tests.fuzz.mutations import EDITS, Edit, edited

pytestmark = pytest.mark.slow

CELLS = [
    "", " ", "0", "1", "2", "-1", "1.0", "255", "256", "1e400", "nan", "NaN", "NA", "inf", "None", "True", "9" * 18,
    "9" * 19, "9" * 400, "٣", "²", "é", "\0", "\t", "a\nb", 'a"b', "a,b", "a|b", "|", "No Finding|Mass", "=1+1", "@x",
    "-x", "/etc/passwd", "../x.png", "./x.png", "a/../x.png", "images/00000000_000.png", "00000000_000.png",
    "x" * 5_000, "M", "F", "PA", "058Y", "121", "train", "tst", "test",
]  # fmt: skip
POLICY = CheXpert(uncertain="unknown", unmentioned="negative", lateral=True)
Rows = list[list[str]]
# A change of a table: of one cell, or of a column with all its cells.
Change = tuple[str, int, int, str]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cell", "cell", "cell", "name", "repeat", "remove", "add", "row"]),
        st.integers(0, 9),
        st.integers(0, 20),
        st.sampled_from(CELLS),
    ),
    min_size=1,
    max_size=3,
)
ENCODINGS = st.sampled_from([*["utf-8"] * 12, "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
BYTES: st.SearchStrategy[list[Edit]] = st.one_of(st.just([]), st.just([]), st.just([]), EDITS)


def changed(text: str, changes: list[Change]) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    for kind, row_index, column_index, value in changes:
        row = rows[row_index % len(rows)]
        column = column_index % max(len(row), 1)
        edit_rows(rows, kind, row, column, value)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def edit_rows(rows: Rows, kind: str, row: list[str], column: int, value: str) -> None:
    """Change one cell, one name, one row, or one column in all rows."""
    if kind in ("cell", "name"):
        (row if kind == "cell" else rows[0])[column : column + 1] = [value]
    elif kind == "row":
        rows.append(list(row))
    else:
        for each in rows if kind != "add" else [row]:
            each[column : column + 1] = {"repeat": each[column : column + 1] * 2, "remove": [], "add": [value, value]}[
                kind
            ]


def write(path: Path, text: str, changes: list[Change], encoding: str, edits: list[Edit]) -> None:
    path.write_bytes(edited(changed(text, changes).encode(encoding, "replace"), edits))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


NIH_ROWS = numbered_rows(12, each=2)


@pytest.fixture(scope="module")
def nih_table(folder: Path) -> str:
    write_nih(folder, NIH_ROWS)
    return (folder / "Data_Entry_2017_v2020.csv").read_text(encoding="utf-8")


def check_table(table: pd.DataFrame) -> None:
    """Check the types and values of the result of `read_table` or `read_sample`."""
    assert len(table) > 0
    assert table["image"].is_unique
    assert all(isinstance(name, str) and name and ".." not in name for name in table["image"])
    assert table["patient"].dtype == np.int64
    assert table["patient"].ge(0).all()
    assert table["age"].dtype == "Int64"
    assert set(table["sex"]) <= {"M", "F", ""}
    labels = table[list(CLASSES)]
    assert (labels.dtypes == np.uint8).all()
    assert labels.isin([0, 1, UNKNOWN]).all(axis=None)


@fuzz(200)
@given(changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_table_of_nih(
    folder: Path, nih_table: str, changes: list[Change], encoding: str, edits: list[Edit]
) -> None:
    write(folder / "Data_Entry_2017_v2020.csv", nih_table, changes, encoding, edits)
    table = outcome(nih.read_table, folder)
    if table is not None:
        check_table(table)
        assert list(table["image"]) == sorted(table["image"])
        assert table["age"].dropna().between(0, nih.MAX_AGE).all()
        assert set(table["view"]) <= {"PA", "AP"}


@fuzz(150)
@given(changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_official_lists(folder: Path, changes: list[Change], encoding: str, edits: list[Edit]) -> None:
    names = [image for image, _, _ in NIH_ROWS]
    (folder / "test_list.txt").write_text("\n".join(names[9:]), encoding="utf-8")
    write(folder / "train_val_list.txt", "\n".join(names[:9]), changes, encoding, edits)
    lists = outcome(nih.read_lists, folder)
    if lists is not None:
        assert list(lists.columns) == ["image", "list"]
        assert lists["image"].is_unique
        assert set(lists["list"]) <= {"train_val", "test"}
        assert not lists["image"].str.contains("[\ufeff\0]").any()


BOX_TEXT = (
    '"Image Index","Finding Label","Bbox [x,y,w,h]",,,\n'
    "00000000_000.png,Mass,10.5,20,30,40.25\n00000001_000.png,Infiltrate,0,0,1024,1024\n"
)


@fuzz(200)
@given(changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_bounding_boxes(folder: Path, changes: list[Change], encoding: str, edits: list[Edit]) -> None:
    write(folder / BOX_FILE, BOX_TEXT, changes, encoding, edits)
    boxes = outcome(read_boxes, folder)
    if boxes is not None and len(boxes):
        assert boxes["class"].isin(CLASSES).all()
        x, y, width, height = (boxes[name].to_numpy(np.float64) for name in ("x", "y", "width", "height"))
        for low, size in ((x, width), (y, height)):
            assert np.isfinite(low + size).all()
            assert ((low >= 0) & (size > 0) & (low + size <= 1 + 1e-9)).all()


CHEXPERT_NAMES = (
    "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly",
    "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
    "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
CHEXPERT_TEXT = ",".join(CHEXPERT_NAMES) + (
    "\nCheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1,0,,-1.0,,1,,1.0,\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Unknown,0,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,\n"
)


@fuzz(150)
@given(changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_tables_of_chexpert(folder: Path, changes: list[Change], encoding: str, edits: list[Edit]) -> None:
    write(folder / "train.csv", CHEXPERT_TEXT, changes, encoding, edits)
    table = outcome(chexpert.read_table, folder, POLICY)
    lists = outcome(chexpert.read_lists, folder)
    if table is not None:
        check_table(table)
        assert set(table["view"]) <= {"AP", "PA", "LL", "RL", "lateral", ""}
        assert lists is not None
        assert set(table["image"]) == set(lists["image"])


@pytest.fixture(scope="module")
def sample_and_split(folder: Path, nih_table: str) -> dict[str, str]:
    """Return the text of a valid sample.csv and of its split.csv."""
    (folder / "Data_Entry_2017_v2020.csv").write_text(nih_table, encoding="utf-8")
    table = nih.read_table(folder)
    write_sample(table, folder / "sample.csv")
    splits = [SPLITS[min(patient // 2, 2)] for patient in table["patient"]]
    return {
        "sample.csv": (folder / "sample.csv").read_text(encoding="utf-8"),
        "split.csv": table[["image", "patient"]].assign(split=splits).to_csv(index=False),
    }


@fuzz(120)
@given(name=st.sampled_from(["sample.csv", "split.csv"]), changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_sample_and_the_split(
    folder: Path, sample_and_split: dict[str, str], name: str, changes: list[Change], encoding: str, edits: list[Edit]
) -> None:
    for file, text in sample_and_split.items():
        write(folder / file, text, changes if file == name else [], encoding, edits if file == name else [])
    table = outcome(read_sample_with_split, folder / "sample.csv", folder / "split.csv")
    if table is not None:
        check_table(table)
        assert set(table["split"]) == set(SPLITS)
        assert table.groupby("patient")["split"].nunique().max() == 1


OFFICIAL_TEXT = "image,list\n00000000_000.png,train_val\n00000001_000.png,test\n"


@fuzz(80)
@given(reader=st.sampled_from([read_official, read_sample]), changes=CHANGES, encoding=ENCODINGS, edits=BYTES)
def test_the_official_split(
    folder: Path, reader: Callable[[Path], pd.DataFrame], changes: list[Change], encoding: str, edits: list[Edit]
) -> None:
    write(folder / "official.csv", OFFICIAL_TEXT, changes, encoding, edits)
    table = outcome(reader, folder / "official.csv")
    if table is not None:
        assert set(table["list"]) <= {"train_val", "test"}
