from pathlib import Path

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES, UNKNOWN
from cxr.core.tables import is_synthetic, name_some, read_sample, write_sample


def some_rows() -> pd.DataFrame:
    labels = np.arange(4 * len(CLASSES), dtype=np.uint8).reshape(4, -1) % 2
    about = {
        "image": [f"{number}.png" for number in range(4)],
        "patient": [1, 1, 2, 3],
        "age": pd.array([58, None, 0, 120], "Int64"),
        "sex": ["M", "", "F", "F"],
        "view": ["PA", "NA", "AP", ""],
    }
    return pd.concat([pd.DataFrame(about), pd.DataFrame(labels, columns=list(CLASSES))], axis=1)


def test_a_sample_comes_back_as_it_was_written(tmp_path: Path) -> None:
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


def test_names_are_shortened() -> None:
    assert name_some(list("abcde")) == "a, b, c, d, e"
    assert name_some(["x"] * 2005) == "x, x, x, x, x and 2,000 more"


def test_a_folder_says_itself_that_it_is_synthetic(tmp_path: Path) -> None:
    assert not is_synthetic(tmp_path)
    (tmp_path / "SYNTHETIC.txt").touch()
    assert is_synthetic(tmp_path)
