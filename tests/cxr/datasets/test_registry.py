from pathlib import Path

import pytest

from cxr.core.errors import InputError
from cxr.datasets.params import CheXpert
from cxr.datasets.registry import dataset_name, read_lists, read_patients, read_table
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tools.phantom.dataset import write_phantom

LABEL_POLICY = CheXpert(uncertain="unknown", unmentioned="negative", lateral=False)


def test_the_layout_determines_the_data_set(tmp_path: Path) -> None:
    nih = write_nih(tmp_path / "nih", numbered_rows(3))
    write_phantom(tmp_path / "chexpert", seed=1, images=3, size=32, layout="chexpert")
    assert dataset_name(nih) == "NIH ChestX-ray14"
    assert dataset_name(tmp_path / "chexpert") == "CheXpert"
    tables = [read_table(folder, LABEL_POLICY) for folder in (nih, tmp_path / "chexpert")]
    assert list(tables[0].columns) == list(tables[1].columns)
    assert [len(table) for table in tables] == [3, 3]
    assert read_lists(nih).empty
    assert not read_lists(tmp_path / "chexpert").empty
    for folder, table in zip((nih, tmp_path / "chexpert"), tables, strict=True):
        patients = read_patients(folder)
        assert set(patients["image"]) >= set(table["image"])
        assert set(patients["patient"].astype(int)) >= set(table["patient"])
    assert read_patients(tmp_path).empty


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .*nowhere not found; set raw_dir in params\.yaml"):
        read_table(tmp_path / "nowhere", LABEL_POLICY)
