"""The phantom data set: the layout of NIH, and identical bytes for identical arguments."""

import filecmp
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, FINDINGS, NO_FINDING
from tests.fixtures.terminal import assert_bar_shown, simulate_terminal
from tools.phantom.dataset import command_line, phantom_exams, write_phantom
from tools.phantom.nih import BOX_LABELS, image_name, image_table
from tools.phantom.radiograph import NIH_SIDE, render

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo"
TABLE = "Data_Entry_2017_v2020.csv"
IMAGES, SIZE = 60, 48
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom data set."""
    out = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(out, seed=1, images=IMAGES, size=SIZE)
    return out


def labels(folder: Path) -> pd.Series:
    """Return the list of labels of each image, by file name."""
    return pd.read_csv(folder / TABLE, index_col=0)["Finding Labels"].str.split("|")


def names(path: Path) -> list[str]:
    """Return the lines of a text file."""
    return path.read_text().splitlines()


def test_the_same_arguments_give_the_same_bytes(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = simulate_terminal(monkeypatch)
    write_phantom(tmp_path / "again", seed=1, images=IMAGES, size=SIZE)
    assert_bar_shown(terminal.getvalue(), "render")
    files = [str(path.relative_to(phantom)) for path in sorted(phantom.rglob("*")) if path.is_file()]
    assert len(files) == IMAGES + 5
    assert filecmp.cmpfiles(phantom, tmp_path / "again", files, shallow=False)[0] == files


def test_another_seed_gives_other_images(phantom: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "other", seed=2, images=4, size=SIZE)
    first = Path("images") / "00000001_000.png"
    assert (phantom / first).read_bytes() != (tmp_path / "other" / first).read_bytes()


def test_an_exam_does_not_depend_on_the_number_of_exams() -> None:
    assert phantom_exams(1, 20) == phantom_exams(1, 60)[:20]


def test_table_has_the_header_and_labels_of_nih(phantom: Path) -> None:
    lines = names(phantom / TABLE)
    assert lines[0] == NIH_HEADER
    assert {len(line.split(",")) for line in lines} == {11}
    for found in labels(phantom):
        assert found == [NO_FINDING] or (found == sorted(found) and set(found) <= set(FINDINGS))


def test_every_image_in_the_table_is_gray_and_of_the_given_size(phantom: Path) -> None:
    files = sorted((phantom / "images").iterdir())
    assert [file.name for file in files] == list(labels(phantom).index)
    for file in files:
        with Image.open(file) as image:
            assert image.size == (SIZE, SIZE)
            assert image.mode in ("L", "RGBA")


def test_lists_cover_the_images_and_share_no_patient(phantom: Path) -> None:
    development, test = names(phantom / "train_val_list.txt"), names(phantom / "test_list.txt")
    assert sorted(development + test) == list(labels(phantom).index)
    assert not {name[:8] for name in development} & {name[:8] for name in test}
    assert 0.23 <= len(test) / IMAGES <= 0.5


def test_each_positive_of_the_boxed_findings_has_its_box(phantom: Path) -> None:
    header, *rows = names(phantom / "BBox_List_2017.csv")
    assert header == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    boxes = pd.read_csv(StringIO("\n".join(rows)), names=["image", "label", "x", "y", "w", "h"])
    expected = {(image, BOX_LABELS[f]) for image, found in labels(phantom).items() for f in found if f in BOX_LABELS}
    assert set(zip(boxes["image"], boxes["label"], strict=True)) == expected
    assert len(boxes) == len(expected)
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes[["w", "h"]] > 0).all(axis=None)
    assert (boxes["x"] + boxes["w"]).max() <= NIH_SIDE
    assert (boxes["y"] + boxes["h"]).max() <= NIH_SIDE


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "--images 0"),
        ({"size": 31}, "--size 31"),
        ({"size": 1025}, "--size 1025"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_arguments_out_of_range_are_rejected(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    arguments = {"seed": 1, "images": 1, "size": 32} | wrong
    with pytest.raises(InputError, match=message):
        write_phantom(tmp_path / "set", arguments["seed"], arguments["images"], arguments["size"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    line = [sys.executable, "-m", "tools.phantom", str(tmp_path)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "not an empty folder" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_a_failed_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("tools.phantom.nih.image_table", broken)
    with pytest.raises(RuntimeError):
        write_phantom(tmp_path / "set", seed=1, images=1, size=32)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not DEMO.is_dir(), reason="data/demo is not there")
class TestDemo:
    """The committed data set is that of the default arguments."""

    defaults = command_line().parse_args([str(DEMO)])
    exams = phantom_exams(defaults.seed, defaults.images)

    def test_table_is_that_of_the_defaults(self) -> None:
        assert image_table(self.exams).to_csv(index=False, lineterminator="\n") == (DEMO / TABLE).read_text()

    def test_images_are_those_of_the_defaults(self) -> None:
        for exam in self.exams[::200]:
            with Image.open(DEMO / "images" / image_name(exam)) as image:
                committed = np.asarray(image.convert("L"), dtype=int)
            assert np.abs(committed - render(exam, self.defaults.size)[0]).max() <= 1

    def test_it_is_under_ten_megabytes(self) -> None:
        assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 10e6

    def test_each_class_has_enough_images(self) -> None:
        fractions = labels(DEMO).explode().value_counts() / self.defaults.images
        assert set(fractions.index) == set(CLASSES)
        assert fractions.min() >= 0.07

    def test_a_few_images_have_four_channels(self) -> None:
        modes = []
        for path in (DEMO / "images").iterdir():
            with Image.open(path) as image:
                modes.append(image.mode)
                if image.mode == "RGBA":
                    red, green, blue, alpha = np.moveaxis(np.asarray(image), -1, 0)
                    assert np.array_equal(red, green)
                    assert np.array_equal(red, blue)
                    assert alpha.min() == 255
        assert 0.003 < modes.count("RGBA") / len(modes) < 0.03
