import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.tables import read_sample
from cxr.datasets.nih import read_table
from cxr.datasets.params import Sample
from stages import sample
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.stages import error_of, files_in, run_stage, write_params


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with 60 images of 30 patients in `raw`, of which 20 are sampled."""
    write_nih(tmp_path / "raw", numbered_rows(60, each=2))
    write_params(tmp_path, raw_dir="raw", **{"sample.size": 20})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(folder: Path) -> pd.DataFrame:
    return read_table(folder / "raw")


def sampled(table: pd.DataFrame, size: int, seed: int = 1, exclude: tuple[str, ...] = ()) -> pd.DataFrame:
    return sample.sample_images(table, Sample(size=size, exclude=list(exclude)), seed)


@pytest.mark.parametrize("size", [1, 20, 59, 60])
def test_the_sample_has_distinct_rows_of_the_table(table: pd.DataFrame, size: int) -> None:
    rows = sampled(table, size)
    assert len(rows) == size
    assert rows["image"].is_monotonic_increasing
    assert rows["image"].is_unique
    pd.testing.assert_frame_equal(rows, table[table["image"].isin(rows["image"])].reset_index(drop=True))


def test_each_class_keeps_its_prevalence(table: pd.DataFrame) -> None:
    # The table has 4 images of each of the 15 classes, so half of it has 2, with a tolerance of one.
    assert sampled(table, 30)[list(CLASSES)].sum().between(1, 3).all()


@pytest.mark.parametrize("shuffle", range(3))
def test_the_order_of_the_rows_does_not_matter(table: pd.DataFrame, shuffle: int) -> None:
    shuffled = table.sample(frac=1, random_state=shuffle)
    pd.testing.assert_frame_equal(sampled(shuffled, 20), sampled(table, 20))


def test_the_sample_depends_on_the_seed_only(table: pd.DataFrame) -> None:
    samples = [tuple(sampled(table, 20, seed)["image"]) for seed in range(10)]
    assert len(set(samples)) == 10
    assert samples[3] == tuple(sampled(table, 20, 3)["image"])


@pytest.mark.parametrize("size", [60, 61, 1000])
def test_all_images_are_used_if_there_are_fewer(table: pd.DataFrame, size: int) -> None:
    pd.testing.assert_frame_equal(sampled(table, size), table)


def test_excluded_images_are_left_out(table: pd.DataFrame) -> None:
    names = tuple(table["image"][::3])
    assert set(sampled(table, 1000, exclude=names)["image"]) == set(table["image"]) - set(names)
    assert not set(sampled(table, 30, exclude=names)["image"]) & set(names)


def test_an_unknown_excluded_image_is_reported(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"sample\.exclude has images that are not in the table: b\.png, x\.png$"):
        sampled(table, 5, exclude=("x.png", table["image"][0], "b.png"))


def test_excluding_everything_is_rejected(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"sample\.exclude excludes every image"):
        sampled(table, 5, exclude=tuple(table["image"]))


def test_the_stage_writes_the_sample_and_its_official_split(folder: Path) -> None:
    names = [name for name, _, _ in numbered_rows(60)]
    (folder / "raw/train_val_list.txt").write_text("\n".join(reversed(names[:40])))
    (folder / "raw/test_list.txt").write_text("\n".join(names[40:]))
    done = run_stage("sample", folder)
    assert done.returncode == 0, done.stderr
    assert "20 of 60 images" in done.stdout
    written = read_sample(folder / "data/sample.csv")
    pd.testing.assert_frame_equal(written, sampled(read_table(folder / "raw"), 20))
    lists = pd.read_csv(folder / "data/official.csv")
    assert list(lists["image"]) == list(written["image"])
    assert (lists["list"] == np.where(lists["image"] < names[40], "train_val", "test")).all()


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    sample.main()
    first = [(folder / f"data/{name}.csv").read_bytes() for name in ("sample", "official")]
    table = folder / "raw/Data_Entry_2017_v2020.csv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(lines)]))
    sample.main()
    assert [(folder / f"data/{name}.csv").read_bytes() for name in ("sample", "official")] == first
    assert first[1] == b"image,list\n"


def test_missing_images_are_reported_and_nothing_is_written(folder: Path) -> None:
    write_params(folder, raw_dir="raw", **{"sample.size": 60})
    for number in (3, 7):
        (folder / f"raw/images/{number:08d}_000.png").unlink()
    before = files_in(folder)
    message = error_of(run_stage("sample", folder))
    assert (
        "2 of the 60 sampled images are missing in raw: 00000003_000.png, 00000007_000.png; complete the download"
        in message
    )
    assert files_in(folder) == before


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"raw_dir": "nowhere"}, ["folder nowhere not found; set raw_dir in params.yaml"]),
        ({"lrr": 0.1, "sample.size": 0}, ["params.yaml is invalid", "lrr: ", "sample.size: "]),
    ],
)
def test_a_user_error_is_one_message(folder: Path, changes: dict[str, object], messages: list[str]) -> None:
    write_params(folder, **changes)
    before = files_in(folder)
    error = error_of(run_stage("sample", folder))
    assert all(message in error for message in messages)
    assert files_in(folder) == before


def test_an_invalid_list_keeps_the_previous_sample(folder: Path) -> None:
    sample.main()
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    write_params(folder, raw_dir="raw", **{"sample.size": 30})
    (folder / "raw/test_list.txt").write_text("a.png")
    with pytest.raises(InputError, match="not the other official list"):
        sample.main()
    for name in ("data/sample.csv", "data/official.csv"):
        assert (folder / name).read_bytes() == before[name]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_40_000_of_the_real_images_keep_every_prevalence(real_table: pd.DataFrame, seed: int) -> None:
    start = time.perf_counter()
    rows = sampled(real_table, 40_000, seed)
    assert time.perf_counter() - start < 10
    assert len(rows) == rows["image"].nunique() == 40_000
    targets = label_matrix(real_table).sum(axis=0) * 40_000 / 112_120
    assert (np.abs(label_matrix(rows).sum(axis=0) - targets) <= np.maximum(0.01 * targets, 1)).all()


@pytest.mark.real_data
def test_all_real_originals_are_sampled(shared: Path, tmp_path: Path) -> None:
    write_params(tmp_path, raw_dir=str(shared / "nih-originals"))
    done = run_stage("sample", tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (shared / "nih-originals/images").iterdir())
    assert list(read_sample(tmp_path / "data/sample.csv")["image"]) == names
