import json
from pathlib import Path

import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.paths import METRICS
from cxr.evaluation.schema import Metrics
from tests.fixtures.project import ROOT
from tests.fixtures.reported import WITHOUT_POSITIVES, make_metrics


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return make_metrics()


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


DIGITS = "1" * 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pairs": [], "more": 1}', r"duplicates\.json was written by another version of this project \(more: "),
        ("{}", r"another version of this project \(pairs: "),
        ('{"pairs": [5]}', r"another version of this project \(pairs\.0: "),
        ("[]", r"another version of this project \(the whole: "),
        ("null", r"another version of this project \(the whole: "),
        (f'{{"pairs": {DIGITS}}}', r"duplicates\.json is not JSON \(.*number out of range"),
        ("[", r"duplicates\.json is not JSON .*run `dvc repro`"),
        ("", r"duplicates\.json is not JSON"),
        ("[" * 100_000, r"duplicates\.json is not JSON \(.*recursion"),
        ("\0", r"duplicates\.json is not text in UTF-8.*run `dvc repro`"),
    ],
)
def test_a_broken_file_is_an_input_error(folder: Path, text: str, message: str) -> None:
    (folder / "duplicates.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Metrics.read(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("test.auroc.Mass", None, r"test\.json .*\(auroc: missing or unknown: Mass\)"),
        ("test.test_images", "35", r"test\.json .*\(test_images: .*integer"),
        ("test.hamming_accuracy", float("nan"), r"test\.json .*\(hamming_accuracy: .*finite"),
        ("classes.classes.Hernia", None, r"classes\.json .*\(classes: missing or unknown: Hernia\)"),
        ("classes.classes.Hernia.auroc", "0.5", r"classes\.json .*\(classes\.Hernia\.auroc: .*number"),
        ("intervals.auroc.mean_14", None, r"intervals\.json .*\(auroc: missing or unknown: mean_14\)"),
        ("data.splits.test", None, r"data\.json .*\(splits: missing or unknown: test\)"),
    ],
)
def test_a_file_with_an_invalid_value_is_an_input_error(folder: Path, keys: str, value: object, message: str) -> None:
    name, *outer, last = keys.split(".")
    content = json.loads((folder / f"{name}.json").read_text())
    section = content
    for key in outer:
        section = section[key]
    section.pop(last)
    if value is not None:
        section[last] = value
    (folder / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        Metrics.read(folder)


def test_a_missing_file_is_an_input_error(folder: Path) -> None:
    (folder / "duplicates.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*duplicates\.json; run `dvc repro`"):
        Metrics.read(folder)


def test_the_committed_files_are_read() -> None:
    assert Metrics.read(ROOT / METRICS).data.name
