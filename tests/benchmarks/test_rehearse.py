"""The rehearsal at a small size: its data, the stages on tables, and the measurement of a process."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import rehearse
from benchmarks.rehearsal_data import LISTS, TABLE, write_archives, write_images, write_tables
from benchmarks.resource_usage import Usage, measure
from cxr.core.errors import InputError
from cxr.datasets.boxes import BOX_FILE, read_boxes
from cxr.datasets.nih import read_lists, read_table
from cxr.evaluation.near_duplicates import near_duplicates
from cxr.images.raw_images import RawImages
from tests.fixtures.project import ROOT
from tools.phantom.nih import BOX_HEADER


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    """Tables of 400 images in the layout of NIH, with two boxes."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    names = write_tables(folder, 400, None)
    boxes = [BOX_HEADER, *(f"{name},Mass,10,10,50,50" for name in (names[0], names[-1]))]
    (folder / BOX_FILE).write_text("\n".join(boxes) + "\n")
    return folder


@pytest.mark.parametrize("given", [True, False])
def test_tables_agree_on_the_images(given: bool, metadata: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    names = write_tables(raw, 100, metadata if given else None)
    table, lists = read_table(raw), read_lists(raw)
    assert len(set(names)) == len(table) == 100
    assert set(lists["image"]) == set(table["image"]) == set(names)
    assert lists.merge(table).groupby("patient")["list"].nunique().max() == 1
    assert 10 < (lists["list"] == "test").sum() < 40
    assert set(read_boxes(raw)["image"]) <= set(names)


def test_whole_patients_are_chosen(metadata: Path, tmp_path: Path) -> None:
    write_tables(tmp_path, 100, metadata)
    chosen, of_all = (read_table(folder)["patient"].value_counts() for folder in (tmp_path, metadata))
    assert (chosen < of_all[chosen.index]).sum() <= 1  # the last one's images may be cut


def test_all_images_of_the_table_are_its_copy(metadata: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_tables(raw, 400, metadata)
    for name in (TABLE, BOX_FILE, *LISTS):
        assert (raw / name).read_text() == (metadata / name).read_text()


def test_images_differ_and_are_the_same_in_archives(tmp_path: Path) -> None:
    names = [f"{number:08}_000.png" for number in range(60)]
    write_images(names, 64, tmp_path / "images")
    (tmp_path / "zips").mkdir()
    write_archives(tmp_path / "images", tmp_path / "zips")
    assert len(list((tmp_path / "zips").iterdir())) == 12
    with RawImages(tmp_path) as files, RawImages(tmp_path / "zips") as members:
        assert all(files.read(name) == members.read(name) for name in names)
    images = np.stack([np.asarray(Image.open(tmp_path / "images" / name)) for name in names])
    assert images.shape == (60, 64, 64)
    assert near_duplicates(images, names, ["train", "test"] * 30).empty


def test_images_of_one_drawing_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.rehearsal_data.DRAWINGS", 2)
    names = [f"{number}.png" for number in range(40)]
    write_images(names, 64, tmp_path / "images")
    images = np.stack([np.asarray(Image.open(tmp_path / "images" / name)) for name in names])
    assert near_duplicates(images, names, ["train", "train", "test", "test"] * 10).empty


def test_the_usage_of_a_process_is_measured(tmp_path: Path) -> None:
    work = "held = bytearray(300_000_000); open('file', 'wb').write(held[:50_000_000]); print('done')"
    usage, output = measure([sys.executable, "-c", work], tmp_path)
    assert output == "done\n"
    assert 3.0e8 < usage.peak < 4.5e8
    assert 0 < usage.cpu < usage.wall + 1
    # Nothing is written to a disk if the temporary folder is in memory.
    assert usage.written in (0, pytest.approx(5e7, rel=0.1))
    small, _ = measure([sys.executable, "-S", "-c", "pass"], tmp_path)
    assert small.peak < 3e7


def test_a_process_that_fails_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"failed:\nboth$"):
        measure([sys.executable, "-c", "import sys; print('bo', end=''); sys.stdout.flush(); sys.exit('th')"], tmp_path)


def test_growth_does_not_depend_on_constant_costs() -> None:
    sizes = np.array([1.0, 4, 16])
    assert rehearse.growth(list(100 + sizes), 1) == "4.0"
    assert rehearse.growth(list(7 + sizes**2), 1) == "16.0"
    assert rehearse.growth([1.0, 1.1, 9], 1) == "–"


def test_the_table_has_a_row_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    results = [{"sample": Usage(wall, 3 * wall, 1e9, 5e6)} for wall in (1.0, 2.0, 6.0)]
    rehearse.print_table([100, 400, 1600], results)
    header, line, row = capsys.readouterr().out.strip().splitlines()
    assert header.count("|") == line.count("|") == row.count("|")
    assert row == "| sample | 3.0 | 6.0 | 18.0 | 4.0 | 1.00 | 1.00 | 1.00 | – | 6 | 5 |"


@pytest.mark.slow
def test_the_stages_run_on_every_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those on tables: the others take half a minute for each size, and DVC needs the outputs of all."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    monkeypatch.setattr(rehearse, "STAGES", ("sample", "split"))
    monkeypatch.setattr(rehearse, "dvc_steps", lambda *_: {})
    monkeypatch.setattr("benchmarks.rehearsal_data.DRAWINGS", 10)
    monkeypatch.setattr(rehearse, "METADATA", tmp_path / "none")
    monkeypatch.setattr("sys.argv", ["rehearse", "--images", "1600", "--folder", str(tmp_path)])
    rehearse.main()
    output = capsys.readouterr().out
    assert output.startswith("no table of NIH: names, patients and labels are synthetic")
    assert "\n| sample | " in output
    assert "\n| split | " in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metadata", "nowhere"], f"nowhere has no {TABLE} or "),
        (["--images", "20"], "--images 20: must be 1,600 or more"),
    ],
)
def test_mistakes_are_reported(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rehearse", *arguments])
    with pytest.raises(InputError, match=message):
        rehearse.main()
