from pathlib import Path

import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.datasets.chexpert import SHARED, read_lists
from cxr.datasets.params import CheXpert
from cxr.datasets.registry import read_table

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
ROOT = "CheXpert-v1.0-small"
TRAIN = f"""{HEADER}
{ROOT}/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,
{ROOT}/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,-1.0,,,,0.0,,1.0,
{ROOT}/train/patient00001/study1/view1_frontal.jpg,Unknown,0,Frontal,PA,1.0,,0.0,,,,0.0,,,0.0,1.0,,,1.0
"""
VALID = f"""{HEADER}
{ROOT}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1,1.0,0.0,0.0,0.0,0.0,0.0,0,0.0,0.0,0.0,0.0
"""
FIRST = "train/patient00001/study1/view1_frontal.jpg"
SECOND = "train/patient00002/study2/view1_frontal.jpg"
LATERAL = "train/patient00002/study1/view2_lateral.jpg"
VALIDATED = "valid/patient64541/study1/view1_frontal.jpg"


def read(
    folder: Path,
    train: str = TRAIN,
    uncertain: str = "unknown",
    unmentioned: str = "negative",
    *,
    lateral: bool = False,
) -> pd.DataFrame:
    (folder / "train.csv").write_text(train, encoding="utf-8")
    (folder / "valid.csv").write_text(VALID, encoding="utf-8")
    label_policy = {"uncertain": uncertain, "unmentioned": unmentioned, "lateral": lateral}
    return read_table(folder, CheXpert.model_validate(label_policy))


def labels(table: pd.DataFrame, image: str, value: int) -> set[str]:
    """Return the classes with the label `value` in an image."""
    row = table.set_index("image").loc[image]
    return {name for name in CLASSES if row[name] == value}


def test_the_frontal_images_of_both_tables_are_combined(tmp_path: Path) -> None:
    table = read(tmp_path)
    assert list(table.columns) == ["image", "patient", "age", "sex", "view", *CLASSES]
    assert table[["image", "patient", "age", "sex", "view"]].to_numpy().tolist() == [
        [FIRST, 1, 0, "", "PA"],
        [SECOND, 2, 87, "F", "AP"],
        [VALIDATED, 64541, 73, "M", "AP"],
    ]


def test_classes_of_nih_only_are_unknown(tmp_path: Path) -> None:
    table = read(tmp_path)
    assert (table[sorted(set(CLASSES) - set(SHARED.values()))] == UNKNOWN).all(axis=None)
    assert labels(table, VALIDATED, UNKNOWN) == set(CLASSES) - set(SHARED.values())


def test_uncertain_labels_are_unknown_and_empty_ones_negative(tmp_path: Path) -> None:
    table = read(tmp_path)
    assert labels(table, FIRST, 1) == {"No Finding", "Effusion"}
    assert labels(table, FIRST, 0) == set(SHARED.values()) - {"No Finding", "Effusion"}
    uncertain_classes = {"Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion"}
    assert labels(table, SECOND, UNKNOWN) & set(SHARED.values()) == uncertain_classes
    assert labels(table, VALIDATED, 1) == {"Cardiomegaly"}


@pytest.mark.parametrize(("uncertain", "value"), [("positive", 1), ("negative", 0)])
def test_uncertain_labels_can_be_read_as_positive_or_negative(tmp_path: Path, uncertain: str, value: int) -> None:
    uncertain_classes = {"Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion"}
    assert uncertain_classes <= labels(read(tmp_path, uncertain=uncertain), SECOND, value)


def test_empty_labels_can_be_read_as_unknown(tmp_path: Path) -> None:
    table = read(tmp_path, unmentioned="unknown")
    assert labels(table, FIRST, 0) == {"Cardiomegaly", "Consolidation", "Pneumothorax"}


def test_lateral_images_can_be_included(tmp_path: Path) -> None:
    table = read(tmp_path, lateral=True).set_index("image")
    assert table.loc[LATERAL, "view"] == "lateral"
    assert len(table) == 4


def test_the_official_split_is_train_and_valid(tmp_path: Path) -> None:
    read(tmp_path)
    assert dict(read_lists(tmp_path).to_numpy().tolist()) == {
        FIRST: "train_val",
        SECOND: "train_val",
        LATERAL: "train_val",
        VALIDATED: "test",
    }


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        (
            f"{ROOT}/train/patient00001",
            "../../etc",
            r"train\.csv: invalid Path '\.\./\.\./etc/study1/view1_fr.*'",
        ),
        ("Unknown", "X", r"train\.csv: invalid Sex 'X' of image train/patient00001/study1"),
        (",83,Lateral", ",old,Lateral", r"Age 'old' of image train/patient00002/study1"),
        ("Frontal,PA", "Oblique,PA", "Frontal/Lateral 'Oblique'"),
        ("Frontal,PA", "Frontal,P", "AP/PA 'P'"),
        ("PA,1.0,", "PA,2.0,", "No Finding '2.0'"),
        ("study2/view1", "study1/view1", None),
        (
            "patient00002/study2/view1_frontal",
            "patient00001/study1/view1_frontal",
            "1 images are listed more than once",
        ),
        ("Sex,", "Gender,", r"train\.csv lacks the columns Sex"),
    ],
)
def test_an_invalid_row_is_reported(tmp_path: Path, was: str, becomes: str, message: str | None) -> None:
    train = TRAIN.replace(was, becomes)
    assert train != TRAIN
    if message is None:
        assert len(read(tmp_path, train)) == 3
        return
    with pytest.raises(InputError, match=message):
        read(tmp_path, train)


def test_valid_is_optional(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "valid.csv").unlink()
    assert list(read_lists(tmp_path)["list"]) == ["train_val"] * 3
