from pathlib import Path

import pytest

from cxr.core.errors import InputError
from cxr.core.labels import FINDINGS, UNKNOWN
from cxr.datasets.expert_labels import read_expert_labels

FOUR = "Image Index,Fracture,Pneumothorax,Airspace opacity,Nodule or mass\n"
READERS = "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_both_layouts_are_read_and_joined(tmp_path: Path) -> None:
    write(tmp_path / "four_findings_expert_labels_test_labels.csv", FOUR + "a.png,NO,YES,NO,YES\n")
    write(tmp_path / "four_findings_expert_labels/validation_labels.csv", FOUR + "b.png,YES,NO,NO,NO\n")
    readings = "1,a.png,7,NO,HEDGE,NO,YES\n1,a.png,7,NO,YES,YES,YES\n2,b.png,7,NO,NO,NO,NO\n"
    write(tmp_path / "four_findings_expert_labels/individual_readers.csv", READERS + readings)
    (table,) = read_expert_labels(tmp_path).values()
    assert table.labels.to_dict("list") == {
        "image": ["a.png", "b.png"],
        "Pneumothorax": [1, 0],
        "Nodule or mass": [1, 0],
        "Airspace opacity": [0, 0],
    }
    # Of two readings by one radiologist, the first is kept.
    assert table.readers["Pneumothorax"].tolist() == [UNKNOWN, 0]
    assert table.readers["reader"].tolist() == ["7", "7"]


def test_all_findings_have_the_names_of_the_classes(tmp_path: Path) -> None:
    names = [name.replace("_", " ") for name in FINDINGS]
    text = f"Image ID,{','.join(names)}\na.png,{','.join(['NO'] * 14)}\n"
    write(tmp_path / "all_findings_expert_labels/all_findings_expert_labels_test_labels.csv", text)
    table = read_expert_labels(tmp_path)["all_findings"]
    assert [name for classes in table.targets.values() for name in classes] == list(FINDINGS)
    assert table.readers.empty


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test_labels", FOUR + "a.png,NO,MAYBE,NO,NO\n", "invalid Pneumothorax 'MAYBE' of image a.png"),
        ("test_labels", FOUR + "a.png,NO,NO,NO,NO\n" * 2, "listed more than once: a.png"),
        ("test_labels", "Image Index,Fracture\na.png,NO\n", "lacks the columns Pneumothorax"),
        ("individual_readers", READERS + "1,a.png,7,NO,NO,NO,NO\n", "but not their labels; add the labels"),
    ],
)
def test_a_bad_table_gives_one_message(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path / f"four_findings_expert_labels_{name}.csv", text)
    with pytest.raises(InputError, match=message):
        read_expert_labels(tmp_path)
