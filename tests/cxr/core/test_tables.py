from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import (
    is_synthetic,
    read_sample,
    read_sample_with_split,
    read_strings,
    reject_duplicates,
    write_sample,
)


def some_rows() -> pd.DataFrame:
    labels = np.arange(4 * len(CLASSES), dtype=np.uint8).reshape(4, -1) % 2
    metadata = {
        "image": [f"{number}.png" for number in range(4)],
        "patient": [1, 1, 2, 3],
        "age": pd.array([58, None, 0, 120], "Int64"),
        "sex": ["M", "", "F", "F"],
        "view": ["PA", "NA", "AP", ""],
    }
    return pd.concat([pd.DataFrame(metadata), pd.DataFrame(labels, columns=list(CLASSES))], axis=1)


def test_reading_a_written_sample_gives_the_same_table(tmp_path: Path) -> None:
    table = some_rows()
    table.loc[[0, 3], ["Mass", "Hernia"]] = UNKNOWN
    write_sample(table, tmp_path / "sample.csv")
    pd.testing.assert_frame_equal(read_sample(tmp_path / "sample.csv"), table)


def test_an_unknown_label_is_an_empty_field(tmp_path: Path) -> None:
    table = some_rows()
    table["Mass"] = UNKNOWN
    write_sample(table, tmp_path / "sample.csv")
    written = pd.read_csv(tmp_path / "sample.csv", dtype=str, keep_default_na=False)
    assert set(written["Mass"]) == {""}
    assert set(written["Hernia"]) == {"0", "1"}


def test_a_folder_with_a_notice_is_synthetic(tmp_path: Path) -> None:
    assert not is_synthetic(tmp_path)
    (tmp_path / "SYNTHETIC.txt").touch()
    assert is_synthetic(tmp_path)


def test_strings_are_read_under_new_names_without_conversion(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Index,Extra,Sex\n001,x,NA\n")
    table = read_strings(tmp_path / "a.csv", {"Index": "image", "Gender": "sex"}, aliases={"Sex": "Gender"})
    assert table.to_dict("list") == {"image": ["001"], "sex": ["NA"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a CSV table"),
        ("a,b\n1,2,3\n", "is not a CSV table"),
        ("a,c\n1,2\n", "lacks the columns b; its columns are a, c"),
        ("a,b\n", "has a header but no rows"),
    ],
)
def test_an_unusable_table_is_an_input_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_strings(tmp_path / "a.csv", {"a": "a", "b": "b"})


def test_repeated_images_are_rejected() -> None:
    reject_duplicates(pd.Series(["a.png", "b.png"]), "list.txt")
    with pytest.raises(InputError, match=r"^list\.txt: 1 images are listed more than once: a\.png$"):
        reject_duplicates(pd.Series(["a.png", "b.png", "a.png"]), "list.txt")


def test_a_split_of_other_images_is_rejected(tmp_path: Path) -> None:
    write_sample(some_rows(), tmp_path / "sample.csv")
    split = some_rows()[["image", "patient"]].assign(split="train")
    write_csv(split, tmp_path / "split.csv")
    assert list(read_sample_with_split(tmp_path / "sample.csv", tmp_path / "split.csv")["split"]) == ["train"] * 4
    write_csv(split[::-1], tmp_path / "split.csv")
    with pytest.raises(InputError, match=r"split\.csv does not match .*sample\.csv"):
        read_sample_with_split(tmp_path / "sample.csv", tmp_path / "split.csv")
