import json
from pathlib import Path

import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.evaluation.schema import Metrics
from tests.fixtures.reported import WITHOUT_POSITIVES, make_run


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return make_run().metrics


@pytest.fixture
def folder(metrics: Metrics, tmp_path: Path) -> Path:
    metrics.write(tmp_path)
    return tmp_path


def test_what_is_written_is_read(metrics: Metrics, folder: Path) -> None:
    assert {path.stem for path in folder.iterdir()} == set(Metrics.model_fields)
    assert Metrics.read(folder) == metrics


def test_the_keys_and_types_that_dvc_metrics_diff_compares(folder: Path) -> None:
    test = json.loads((folder / "test.json").read_text())
    means = ["mean_15", "mean_14"]
    assert list(test["auroc"]) == [*means, "classes_in_mean_15", "classes_in_mean_14", *CLASSES]
    assert (test["auroc"]["classes_in_mean_15"], test["auroc"][WITHOUT_POSITIVES]) == (14, None)
    assert list(test)[1:] == [
        "average_precision",
        "brier",
        "calibration_error",
        "f1",
        "hamming_accuracy",
        "exact_match",
        "test_images",
        "synthetic_test_images",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pairs": [], "more": 1}', r"another version of this project \(duplicates\.more: "),
        ("{}", r"another version of this project \(duplicates\.pairs: "),
        ("[", r"duplicates\.json is not JSON"),
    ],
)
def test_a_broken_file_is_an_input_error(folder: Path, text: str, message: str) -> None:
    (folder / "duplicates.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Metrics.read(folder)


def test_a_missing_file_is_an_input_error(folder: Path) -> None:
    (folder / "duplicates.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*duplicates\.json; run `dvc repro`"):
        Metrics.read(folder)


def test_a_missing_text_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"abc123 was written by another version of this project \(test: "):
        Metrics.parse({}, "abc123")
