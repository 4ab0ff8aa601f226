import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.core.errors import InputError
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.tables import SPLITS, read_sample
from cxr.datasets.nih import read_lists
from cxr.datasets.params import Sample, Split
from stages import split
from stages.sample import sample_images
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of, files_in, run_stage, write_params

FRACTIONS = Split(method="patient", train=0.7, val=0.15, test=0.15)


def table_of(patients: Iterable[int], label: str = "") -> pd.DataFrame:
    """Return a sample with an image for each of `patients`, all of class `label` or of each class in turn."""
    numbers = np.array(list(patients))
    names = [label or CLASSES[row % 15] for row in range(len(numbers))]
    labels = pd.DataFrame({name: [int(name == positive) for positive in names] for name in CLASSES}, dtype=np.uint8)
    images = [f"{patient:08d}_{row:03d}.png" for row, patient in enumerate(numbers)]
    metadata = pd.DataFrame({"image": images, "patient": numbers, "age": 50, "sex": "M", "view": "PA"})
    return pd.concat([metadata, labels], axis=1)


def counts(split_of_image: pd.Series) -> list[int]:
    return [int((split_of_image == name).sum()) for name in SPLITS]


def shared_patients(table: pd.DataFrame, split_of_image: pd.Series) -> int:
    return int((split_of_image.groupby(table["patient"]).nunique() > 1).sum())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(0, 9))
def test_no_patient_is_in_two_splits(patients: list[int], seed: int) -> None:
    table = table_of(patients)
    split_of_image = split.split_by_patient(table, FRACTIONS, seed)
    assert shared_patients(table, split_of_image) == 0
    assert sum(counts(split_of_image)) == len(table)


def test_the_counts_are_exact_fractions(capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(list(range(100)) * 3 + list(range(100, 200)))
    assert counts(split.split_by_patient(table, FRACTIONS, 1)) == [280, 60, 60]
    halves = Split(method="patient", train=0.5, val=0.25, test=0.25)
    assert counts(split.split_by_patient(table, halves, 1)) == [200, 100, 100]
    assert capsys.readouterr().err == ""


def test_the_nearest_counts_are_found_with_a_warning_if_patients_forbid_exact_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = table_of([1] * 10 + [2] * 4 + [3] * 4)
    split_of_image = split.split_by_patient(table, FRACTIONS, 1)
    assert counts(split_of_image) == [10, 4, 4]
    assert "exactly [12, 3, 3] images; the nearest found is [10, 4, 4]" in capsys.readouterr().err


def test_the_split_depends_on_the_seed_only() -> None:
    table = table_of(range(200))
    split_of_image = [tuple(split.split_by_patient(table, FRACTIONS, seed)) for seed in range(5)]
    assert len(set(split_of_image)) == 5
    assert split_of_image[2] == tuple(split.split_by_patient(table, FRACTIONS, 2))


def lists_of(table: pd.DataFrame, test_patients: set[int]) -> pd.DataFrame:
    names = np.where(table["patient"].isin(test_patients), "test", "train_val")
    return pd.DataFrame({"image": table["image"], "list": names}).iloc[::-1]


def test_the_official_test_list_is_exactly_test() -> None:
    table = table_of(np.arange(300) // 2)
    lists = lists_of(table, set(range(0, 150, 3)))
    split_of_image = split.split_by_lists(table, lists, FRACTIONS, 1)
    assert set(table["image"][split_of_image == "test"]) == set(lists["image"][lists["list"] == "test"])
    assert counts(split_of_image) == [170, 30, 100]
    assert shared_patients(table, split_of_image) == 0
    assert list(split_of_image.index) == list(table.index)


def test_images_in_neither_list_are_reported() -> None:
    table = table_of(range(20))
    with pytest.raises(InputError, match=r"18 images are in neither .*: 00000002_002\.png, .* and 13 more"):
        split.split_by_lists(table, lists_of(table[:2], {1}), FRACTIONS, 1)


@pytest.mark.parametrize("test_patients", [set(range(20)), set()], ids=["test", "train_val"])
def test_lists_that_leave_a_split_empty_are_rejected(test_patients: set[int]) -> None:
    table = table_of(range(20))
    with pytest.raises(InputError, match=r"(train|test) has no images"):
        split.check_split(table, split.split_by_lists(table, lists_of(table, test_patients), FRACTIONS, 1))


def split_series(*names: str) -> pd.Series:
    return pd.Series(names)


def test_a_class_missing_in_a_split_gives_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    split.check_split(table_of([1, 2, 3], "Mass"), split_series("train", "val", "test"))
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 3 * 15
    assert "warning: val has no images with Hernia: its AUROC is undefined there" in warnings
    assert "warning: test has only images with Mass: its AUROC is undefined there" in warnings


def test_a_split_with_every_class_gives_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    split.check_split(table_of(range(45)), split_series(*np.repeat(SPLITS, 15)))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("patients", [[1], [1, 2], [1, 1, 1, 1, 2, 2]])
def test_too_few_patients_for_three_splits_are_rejected(patients: list[int]) -> None:
    table = table_of(patients)
    with pytest.raises(InputError, match=r"(val|test) has no images: change the fractions"):
        split.check_split(table, split.split_by_patient(table, FRACTIONS, 1))


def test_a_patient_in_two_splits_is_rejected() -> None:
    with pytest.raises(InputError, match="1 patients are in more than one split: 7"):
        split.check_split(table_of([1, 7, 7, 3]), split_series("train", "train", "val", "test"))


def write_sample(folder: Path, table: pd.DataFrame, lists: pd.DataFrame | None = None) -> None:
    write_csv(table, folder / "data/sample.csv")
    write_csv(pd.DataFrame({"image": [], "list": []}) if lists is None else lists, folder / "data/official.csv")


@pytest.mark.parametrize("method", ["patient", "official"])
def test_the_stage_writes_its_table(tmp_path: Path, method: str) -> None:
    table = table_of(np.arange(400) // 2)
    write_sample(tmp_path, table, lists_of(table, set(range(0, 200, 2))))
    write_params(tmp_path, **{"split.method": method})
    done = run_stage("split", tmp_path)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "data/split.csv")
    assert list(written.columns) == ["image", "patient", "split"]
    pd.testing.assert_frame_equal(written[["image", "patient"]], table[["image", "patient"]])
    assert counts(written["split"]) == ([280, 60, 60] if method == "patient" else [170, 30, 200])
    assert f"{counts(written['split'])[0]} train" in done.stdout


@pytest.mark.parametrize(
    ("table", "method", "message"),
    [
        (None, "patient", "data/sample.csv not found; run `dvc repro` to create"),
        (table_of(range(20)), "official", "20 images are in neither train_val_list.txt nor test_list.txt"),
        (table_of([1]), "patient", "val has no images"),
        (table_of([1, 2, 3]).assign(image="a.png"), "patient", "1 images are listed more than once: a.png"),
    ],
    ids=["no sample", "no lists", "one image", "an image thrice"],
)
def test_a_user_error_is_one_message(tmp_path: Path, table: pd.DataFrame | None, method: str, message: str) -> None:
    if table is not None:
        write_sample(tmp_path, table)
    write_params(tmp_path, **{"split.method": method})
    before = files_in(tmp_path)
    assert message in error_of(run_stage("split", tmp_path))
    assert files_in(tmp_path) == before


def assert_prevalence_kept(table: pd.DataFrame, split_of_image: pd.Series, sizes: dict[str, int]) -> None:
    """Check that each split has its size, and each class its prevalence in every split within 1 % or one image."""
    labels = label_matrix(table)
    for name, size in sizes.items():
        targets = labels.sum(axis=0) * size / len(table)
        found = labels[(split_of_image == name).to_numpy()]
        assert len(found) == size
        assert (np.abs(found.sum(axis=0) - targets) <= np.maximum(0.01 * targets, 1)).all()
        assert found[:, CLASSES.index("Hernia")].sum() > 0


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_real_images_are_28_000_and_6_000_and_6_000(real_table: pd.DataFrame, seed: int) -> None:
    table = sample_images(real_table, Sample(size=40_000, exclude=[]), seed)
    start = time.perf_counter()
    split_of_image = split.split_by_patient(table, FRACTIONS, seed)
    assert time.perf_counter() - start < 10
    assert shared_patients(table, split_of_image) == 0
    assert_prevalence_kept(table, split_of_image, {"train": 28_000, "val": 6_000, "test": 6_000})


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_official_split(shared: Path, real_table: pd.DataFrame) -> None:
    lists = read_lists(shared / "nih-metadata")
    split_of_image = split.split_by_lists(real_table, lists, FRACTIONS, 1)
    assert set(real_table["image"][split_of_image == "test"]) == set(lists["image"][lists["list"] == "test"])
    assert shared_patients(real_table, split_of_image) == 0
    rest = split_of_image != "test"
    assert_prevalence_kept(real_table[rest], split_of_image[rest], {"train": 73_545, "val": 12_979})


# The peak memory of a child process starts from that of its parent, so a small process starts the stage.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run([sys.executable, "-m", sys.argv[1]], check=False).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"code": code, "seconds": time.perf_counter() - start, "bytes": peak}))
"""


def measure(stage: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, f"stages.{stage}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    usage: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return usage


@pytest.mark.real_data
def test_both_stages_at_full_size_take_seconds_and_little_memory(
    shared: Path, real_table: pd.DataFrame, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    for path in (shared / "nih-metadata").iterdir():
        (raw / path.name).symlink_to(path)
    for name in real_table["image"]:
        (raw / "images" / name).touch()
    write_params(tmp_path, raw_dir="raw", **{"sample.size": 40_000})
    for stage in ("sample", "split"):
        usage = measure(stage, tmp_path)
        assert usage["code"] == 0
        assert usage["seconds"] < 40  # 3 s on a fast core, 12 s on a slow and busy one
        assert usage["bytes"] < 1e9
    rows, split_of_image = read_sample(tmp_path / "data/sample.csv"), pd.read_csv(tmp_path / "data/split.csv")
    assert rows["image"].nunique() == 40_000
    assert set(pd.read_csv(tmp_path / "data/official.csv")["image"]) == set(rows["image"])
    pd.testing.assert_frame_equal(split_of_image[["image", "patient"]], rows[["image", "patient"]])
    assert shared_patients(rows, split_of_image["split"]) == 0
    assert_prevalence_kept(rows, split_of_image["split"], {"train": 28_000, "val": 6_000, "test": 6_000})
