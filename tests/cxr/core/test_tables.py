from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import (
    check_images,
    is_synthetic,
    read_curves,
    read_official,
    read_sample,
    read_sample_with_split,
    read_strings,
    reject_duplicates,
    write_sample,
)

CURVE_METRICS = [
    *("lr", "train_loss", "val_loss", "val_auroc", "val_accuracy"),
    *(f"val_accuracy.{name}" for name in CLASSES),
]


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


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n", encoding="utf-8-sig")
    assert read_strings(tmp_path / "a.csv", ("a", "b")).to_dict("list") == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("header", "names"), [("Sex,Gender", "Sex, Gender"), ("Gender,x,Gender", "Gender, Gender"), ("Sex,Sex", "Sex, Sex")]
)
def test_two_columns_of_one_meaning_are_refused(tmp_path: Path, header: str, names: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n{header}\n")
    with pytest.raises(InputError, match=f"has the columns {names}, which mean the same; keep one of them"):
        read_strings(tmp_path / "a.csv", {"Gender": "sex"}, aliases={"Sex": "Gender"})


def test_columns_that_are_not_read_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,,,x,x\n1,2,3,4,5\n")
    assert read_strings(tmp_path / "a.csv", ["a"]).to_numpy().tolist() == [["1"]]


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/etc/a.png", "../a.png", "images/../images/a.png", "a/./b.png", "a//b.png", "a/", "a\\b.png"),
        *("=cmd.png", "+1.png", "-1.png", "@a.png", "\t=cmd.png", "a\nb.png", "a\x7f.png"),
    ],
)
def test_an_image_name_that_is_unsafe_as_a_path_or_in_a_spreadsheet_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^a\.csv: 1 invalid image names: .*; a name must be a file name or a path"):
        check_images(pd.Series(["good.png", name]), "a.csv")


def test_other_image_names_are_valid() -> None:
    names = [
        "00000001_000.png",
        "train/patient00001/study1/view1_frontal.jpg",
        "..a.png",
        "a b=.png",
        "é-.png",
        "x/..a",
    ]
    check_images(pd.Series(names), "a.csv")


def test_repeated_images_are_rejected() -> None:
    reject_duplicates(pd.Series(["a.png", "b.png"]), "list.txt")
    with pytest.raises(InputError, match=r"^list\.txt: 1 images are listed more than once: a\.png$"):
        reject_duplicates(pd.Series(["a.png", "b.png", "a.png"]), "list.txt")


def write_both(folder: Path) -> pd.DataFrame:
    """Write sample.csv, and split.csv with all three splits; return the table of the latter."""
    write_sample(some_rows(), folder / "sample.csv")
    split = some_rows()[["image", "patient"]].assign(split=["train", "train", "val", "test"])
    write_csv(split, folder / "split.csv")
    return split


def read_both(folder: Path) -> list[str]:
    return list(read_sample_with_split(folder / "sample.csv", folder / "split.csv")["split"])


def test_a_sample_is_read_with_its_split(tmp_path: Path) -> None:
    write_both(tmp_path)
    assert read_both(tmp_path) == ["train", "train", "val", "test"]


@pytest.mark.parametrize("patients", [[1, 1, 2, 3], [1, 1, 2, 4]])
def test_a_split_of_other_images_or_patients_is_rejected(tmp_path: Path, patients: list[int]) -> None:
    split = write_both(tmp_path).assign(patient=patients)
    write_csv(split[::-1] if patients[-1] == 3 else split, tmp_path / "split.csv")
    with pytest.raises(InputError, match=r"split\.csv does not match .*sample\.csv; run .*stages.split"):
        read_both(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "train", "tst", "val"], "invalid split 'tst' of image 2.png"),
        (["train", "train", "", "val"], "invalid split '' of image 2.png"),
        (["train", "train", "Test", "val"], "invalid split 'Test' of image 2.png"),
        (["train", "val", "val", "test"], "1 patients are in more than one split: 1;"),
        (["train", "test", "val", "test"], "1 patients are in more than one split: 1;"),
        (["train", "train", "train", "test"], "val has no images"),
        (["val", "val", "val", "test"], "train has no images"),
        (["train", "train", "train", "val"], "test has no images"),
    ],
)
def test_an_invalid_split_is_rejected(tmp_path: Path, splits: list[str], message: str) -> None:
    write_csv(write_both(tmp_path).assign(split=splits), tmp_path / "split.csv")
    with pytest.raises(InputError, match=rf"split\.csv: {message}"):
        read_both(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("Mass", value) for value in ("2", "-1", "0.5", "1.0", "255", "256", "nan", "NA", "yes", " 1", "inf")),
        *(("patient", value) for value in ("", "1.5", "-1", "9" * 19, "x", "\u0663")),
        *(("age", value) for value in ("-1", "57.5", "1000", "old", "1e2")),
        *(("sex", "X"), ("view", "=cmd"), ("view", "PA\n")),
    ],
)
def test_an_invalid_value_of_the_sample_is_rejected(tmp_path: Path, column: str, value: str) -> None:
    rows = some_rows().astype(object)
    rows.loc[2, column] = value
    write_csv(rows, tmp_path / "sample.csv")
    with pytest.raises(InputError, match=rf"sample\.csv: invalid {column} '.*' of image 2\.png; correct the row"):
        read_sample(tmp_path / "sample.csv")


def test_a_sample_with_repeated_or_unsafe_images_is_rejected(tmp_path: Path) -> None:
    write_csv(some_rows().assign(image=["a.png", "b.png", "b.png", "c.png"]), tmp_path / "sample.csv")
    with pytest.raises(InputError, match=r"sample\.csv: 1 images are listed more than once: b\.png"):
        read_sample(tmp_path / "sample.csv")
    write_csv(some_rows().assign(image=["a.png", "b.png", "../c.png", "d.png"]), tmp_path / "sample.csv")
    with pytest.raises(InputError, match=r"sample\.csv: 1 invalid image names: '\.\./c\.png'"):
        read_sample(tmp_path / "sample.csv")


def test_the_official_split_may_be_empty_but_not_invalid(tmp_path: Path) -> None:
    path = tmp_path / "official.csv"
    path.write_text("image,list\n")
    assert read_official(path).to_dict("list") == {"image": [], "list": []}
    path.write_text("image,list\na.png,test\nb.png,train_val\n")
    assert read_official(path).to_numpy().tolist() == [["a.png", "test"], ["b.png", "train_val"]]
    for rows, message in (
        ("a.png,tst", "invalid list 'tst' of image a.png"),
        ("a.png,test\na.png,test", "once: a.png"),
    ):
        path.write_text(f"image,list\n{rows}\n")
        with pytest.raises(InputError, match=rf"official\.csv: .*{message}"):
            read_official(path)


def test_curves_are_read_as_they_were_written(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((3, len(CURVE_METRICS)))
    values[1, 3] = np.nan
    curves = pd.DataFrame(values, columns=CURVE_METRICS)
    curves.insert(0, "member", ["a-1", "a-1", "b-2"])
    curves.insert(1, "epoch", [1, 2, 1])
    curves.to_csv(tmp_path / "curves.csv", index=False)
    pd.testing.assert_frame_equal(read_curves(tmp_path / "curves.csv"), curves, check_exact=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.25", "O.25", "could not convert"),
        ("1,", "1.5,", "invalid literal"),
        ("val_loss", "loss", "lacks the columns val_loss"),
    ],
)
def test_damaged_curves_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = ",".join(("member", "epoch", *CURVE_METRICS)) + "\na,1" + ",0.25" * len(CURVE_METRICS) + "\n"
    path = tmp_path / "curves.csv"
    path.write_text(text, encoding="utf-8")
    assert len(read_curves(path)) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=rf"curves\.csv.*{message}"):
        read_curves(path)
