"""Predicting images of one's own, as a person does it, with two tiny networks that the stages trained on PNGs."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration
from cxr.inference.saliency import layer_cam
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.model_file import load_model, save_model
from tests.fixtures.planted import SIDE
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of, files_in
from tests.fixtures.terminal import assert_time_left, play_terminal
from tests.fixtures.trained import names_of, train_project
from tools.phantom.exam import Exam
from tools.phantom.radiograph import draw
from tools.predict import command
from tools.predict.flags import COLOUR_SHARE, coloured_share, contrast, shape_flags
from tools.predict.output import NOT_CLINICAL, OF_DRAWINGS
from tools.predict.overlays import Overlays, overlay
from tools.predict.reading import Failure, Picture, read_picture
from tools.predict.sources import find_files

BATCH = 16
VIEWS = {"hflip": True, "translate": 0.05, "scale": 0, "five_crop": 0}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where resize, train and evaluate have run on PNGs of four kinds; two members, and views."""
    folder = tmp_path_factory.mktemp("project")
    train_project(folder, batch_size=BATCH, tta=VIEWS)
    return folder


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "project" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("project"))


@pytest.fixture
def evaluated(project: Path) -> pd.DataFrame:
    """What evaluate said before calibration, indexed by image."""
    return pd.read_csv(project / "data/predictions.csv", index_col="image")[list(CLASSES)]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = [sys.executable, "-m", "tools.predict", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def call_here(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """The same in this process, which spares its start."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    command.main()


def predicted(monkeypatch: pytest.MonkeyPatch, path: Path, *words: str | Path) -> dict[str, Any]:
    call_here(monkeypatch, *words, "--json", path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def probabilities(found: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([[image["probabilities"][name] for name in CLASSES] for image in found["images"]])


def chest(side: int = 64) -> NDArray[np.uint8]:
    return draw(Exam(seed=1, patient=1, number=0, age=50, sex="M", view="PA"), side)[0]


def png(pixels: NDArray[Any], path: Path) -> Path:
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def test_what_the_networks_see_is_what_resize_wrote(project: Path) -> None:
    images = np.load("data/images.npy")
    for row, name in enumerate(names_of(project)):
        picture = read_picture(project / "images" / name, SIDE)
        assert isinstance(picture, Picture)
        assert np.array_equal(picture.square, images[row])


def test_the_numbers_are_evaluates_after_calibration(
    project: Path, evaluated: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = predicted(
        monkeypatch, tmp_path / "a.json", *(f"images/{name}" for name in evaluated.index), "--batch-size", str(BATCH)
    )
    decisions = json.loads(Path("data/decisions.json").read_text())
    expected = Calibration.from_dict(decisions["calibration"]).apply(evaluated.to_numpy())
    np.testing.assert_allclose(probabilities(found), expected, rtol=1e-9)
    assert [image["file"] for image in found["images"]] == [f"images/{name}" for name in evaluated.index]
    called = evaluated.to_numpy() >= decisions["thresholds"]
    assert called.any()
    for image, row in zip(found["images"], called, strict=True):
        assert image["called"] == [name for name, is_called in zip(CLASSES, row, strict=True) if is_called]
    assert list(found["thresholds"].values()) == decisions["calibrated_thresholds"]
    assert found["calibrated"]
    assert (found["failed"], found["note"]) == ([], NOT_CLINICAL)


def test_one_image_alone_gets_the_same_number_and_a_table_to_read(
    project: Path,
    evaluated: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = evaluated.index[3]
    call_here(monkeypatch, f"images/{name}", "--heatmaps", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"images/{name}"
    decisions = json.loads((project / "data/decisions.json").read_text())
    expected = Calibration.from_dict(decisions["calibration"]).apply(evaluated.loc[[name]].to_numpy())[0]
    rows = {line[2:22].strip(): line for line in lines if line[2:22].strip() in CLASSES}
    for column, title in enumerate(CLASSES):
        assert float(rows[title].split()[-2]) == pytest.approx(expected[column], abs=0.0011)
    starred = {title for title in CLASSES if rows[title].startswith("*")}
    assert starred == {
        title for title in CLASSES if evaluated.loc[name, title] >= decisions["thresholds"][CLASSES.index(title)]
    }
    assert files_in(tmp_path) == {f"{Path(name).stem}.{title.replace(' ', '_')}.png" for title in starred}
    assert lines[-1] == NOT_CLINICAL
    assert lines[-2].startswith("1 image, 1 flagged. Calibrated")


def test_of_many_images_each_has_a_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_here(monkeypatch, "images")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 160 + 2
    assert [line.split()[0] for line in lines[:160]] == [f"images/{name}" for name in names_of(project)]
    assert lines[-2].startswith("160 images")
    assert "Calibrated probabilities of 2 networks (test_resnet-1, test_resnet-2)" in lines[-2]


def test_a_broken_file_among_a_thousand_is_named_and_the_others_go_on(project: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"films/{number:03d}.png" for number in range(1000)]
    files[0].parent.mkdir()
    for file, name in zip(files, cycle(names_of(project)), strict=False):
        shutil.copyfile(project / "images" / name, file)
    broken = files.pop(740)
    broken.write_bytes(broken.read_bytes()[:900])
    words = ("--csv", str(tmp_path / "a.csv"), "--model", "data/models/test_resnet-1.safetensors")
    done = call(project, str(broken.parent), *words)
    assert error_of(done) == "error: 1 of 1,000 files cannot be read: see the warnings above\n"
    (warning,) = re.findall("warning: (.*)", done.stderr)
    assert warning.startswith(f"{broken}: ")
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table["file"]) == list(map(str, files))
    assert list(table.columns) == ["file", *CLASSES, "called", "flags"]
    assert table[list(CLASSES)].notna().all(axis=None)
    assert "999 images" in done.stdout
    assert "1 unreadable" in done.stdout


def test_a_terminal_shows_lines_and_warnings_above_a_bar_with_the_time_left(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = play_terminal(monkeypatch)
    (tmp_path / "a.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match="1 of 161 files"):
        call_here(monkeypatch, "images", tmp_path)
    assert_time_left(terminal.getvalue(), "predict")
    # The bar is wiped from its line before the warning takes it.
    assert f"\rwarning: {tmp_path / 'a.png'}: not an image\n" in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 160 + 2


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_where_nothing_can_be_read_the_table_is_empty(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="1 of 1 files cannot be read"):
        call_here(monkeypatch, tmp_path / "a.png", "--csv", tmp_path / "a.csv")
    assert len(pd.read_csv(tmp_path / "a.csv")) == 0


def test_a_model_file_alone_describes_itself_and_is_not_calibrated(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Path("data/models/test_resnet-2.safetensors")
    found = predicted(monkeypatch, tmp_path / "a.json", "images", "--model", one)
    classifier, _ = load_model(one)
    pixels = torch.from_numpy(np.load("data/images.npy")).unsqueeze(1) / 255
    with torch.inference_mode():
        expected = torch.sigmoid(classifier(pixels).double()).numpy()
    np.testing.assert_allclose(probabilities(found), expected, rtol=1e-5)
    assert (found["calibrated"], found["thresholds"]) == (False, None)
    assert all(image["called"] == [] for image in found["images"])
    assert "Uncalibrated probabilities of test_resnet-2, without thresholds" in capsys.readouterr().out


def test_the_members_are_known_by_their_bytes_wherever_they_lie(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies = [shutil.copyfile(f"data/models/test_resnet-{seed}.safetensors", tmp_path / f"{seed}") for seed in (2, 1)]
    default = predicted(monkeypatch, tmp_path / "a.json", "images")
    named = predicted(monkeypatch, tmp_path / "b.json", "images", "--model", *copies)
    assert named["calibrated"]
    np.testing.assert_allclose(probabilities(named), probabilities(default), rtol=1e-12)


def test_without_decisions_or_with_old_ones_the_next_command_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, model = (project / path for path in ("images/00000000_000.png", "data/models/test_resnet-1.safetensors"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no data/decisions.json; run `dvc repro`.* name model files"):
        call_here(monkeypatch, image)
    assert not predicted(monkeypatch, tmp_path / "a.json", image, "--model", model)["calibrated"]
    (tmp_path / "data").mkdir()
    content = json.loads((project / "data/decisions.json").read_text())
    for change, message in (
        ({"tta": None}, "not what evaluate writes"),
        ({"classes": ["Edema"]}, "others than this version's"),
        ({}, "has no 'sha256': it is of an older version; run `dvc repro`"),
    ):
        altered = {**content, **change}
        if not change:
            del altered["sha256"]
        (tmp_path / "data/decisions.json").write_text(json.dumps(altered))
        with pytest.raises(InputError, match=message):
            call_here(monkeypatch, image)


def test_where_a_failed_run_took_the_networks_the_way_back_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    shutil.copyfile(project / "data/decisions.json", tmp_path / "data/decisions.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"no data/models/test_resnet-1\.safetensors, .*`git checkout \. && dvc checkout`"
    ):
        call_here(monkeypatch, project / "images/00000000_000.png")


def test_networks_that_know_drawings_only_say_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project / "data/models", tmp_path / "data/models")
    shutil.copyfile(project / "data/decisions.json", tmp_path / "data/decisions.json")
    shutil.copytree(project / "metrics", tmp_path / "metrics")
    image = project / "images/00000000_000.png"
    monkeypatch.chdir(tmp_path)
    metrics = Path("metrics/classes.json")
    for synthetic in (False, True):
        metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "synthetic": synthetic}))
        assert predicted(monkeypatch, tmp_path / "a.json", image)["synthetic"] == synthetic
        assert (OF_DRAWINGS in capsys.readouterr().out) == synthetic
    model = "data/models/test_resnet-1.safetensors"
    assert not predicted(monkeypatch, tmp_path / "a.json", image, "--model", model)["synthetic"]


def test_networks_of_two_sizes_are_no_ensemble(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Architecture("test_resnet", 1, 48)
    save_model(build_classifier(other), other, {}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"test_resnet-1\.safetensors 32 px.*other\.safetensors 48 px"):
        call_here(
            monkeypatch, "images", "--model", "data/models/test_resnet-1.safetensors", tmp_path / "other.safetensors"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonesuch.png"], "nonesuch.png: there is no such file"),
        (["data/models"], "data/models: no image in it"),
        (["images", "--batch-size", "0"], "--batch-size 0: at least one"),
        (["images", "--class", "Mass"], "--class Mass: .*--heatmaps DIR"),
        (["images", "--csv", "images"], "--csv images: that is a folder"),
        (["images", "--json", "images/00000003_000.png"], "--json .*: that is one of the images"),
        (["images", "--heatmaps", "params.yaml"], "--heatmaps params.yaml: that is a file"),
    ],
)
def test_mistakes_are_named_before_any_work(
    project: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    before = files_in(project)
    with pytest.raises(InputError, match=message):
        call_here(monkeypatch, *words)
    assert files_in(project) == before


def test_files_folders_and_patterns_name_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "sub/c.dcm", "sub/d", "sub/e.txt", ".hidden/f.png", "sub/.g.png", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*words: str) -> list[str]:
        return [str(path) for path in find_files(words)]

    assert found(".") == ["[1].png", "a.JPG", "b.png", "sub/c.dcm", "sub/d"]
    assert found("b.png", ".", "sub/e.txt") == ["b.png", "[1].png", "a.JPG", "sub/c.dcm", "sub/d", "sub/e.txt"]
    assert found("**/*.dcm", "[1].png", str(tmp_path / "*.png")) == ["sub/c.dcm", "[1].png", str(tmp_path / "b.png")]


def photo() -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    return np.asarray(Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240)))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_colour_is_flagged_and_gray_in_three_channels_is_not(form: str) -> None:
    def file(pixels: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form)
        return stream.getvalue()

    assert coloured_share(file(photo())) > 0.5
    assert coloured_share(file(np.dstack([chest(128)] * 3))) == 0
    marked = np.dstack([chest(128)] * 3)
    marked[:16, :32] = (255, 0, 0)
    assert 0 < coloured_share(file(marked)) < COLOUR_SHARE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_camera_was(tmp_path: Path, orientation: int) -> None:
    pixels = chest(64)[:, :48]
    # What a viewer shows of what is stored: EXIF 2.3, 4.6.4 A, tag 274.
    shown = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    image = Image.fromarray(pixels)
    image.getexif()[274] = orientation
    image.save(tmp_path / "a.jpg", quality=95, exif=image.getexif())
    picture = read_picture(tmp_path / "a.jpg", 32, is_shown=True)
    assert isinstance(picture, Picture)
    assert picture.shown is not None
    assert picture.shown.shape == shown.shape
    assert np.abs(picture.shown.astype(int) - shown).mean() < 4


def test_odd_proportions_and_inverted_pictures_are_flagged(tmp_path: Path) -> None:
    for pixels, expected in (
        (chest(), []),
        (255 - chest(), ["not laid out"]),
        (np.full((64, 64), 90, np.uint8), ["not laid out"]),
        (np.repeat(chest(), 2, axis=1), ["odd proportions, 128 x 64"]),
        (np.repeat(chest(), 2, axis=0), ["odd proportions, 64 x 128"]),
        (np.repeat(255 - chest(), 2, axis=0), ["odd proportions", "not laid out"]),
    ):
        picture = read_picture(png(pixels, tmp_path / "a.png"), 96)
        assert isinstance(picture, Picture)
        assert len(picture.flags) == len(expected)
        assert all(flag.startswith(start) for flag, start in zip(picture.flags, expected, strict=True))


@pytest.mark.real_data
def test_real_images_pass_and_are_flagged_when_inverted(shared: Path) -> None:
    files = sorted((shared / "nih-mini/images").glob("*.png"))[::6]
    squares = [picture.square for file in files if isinstance(picture := read_picture(file, 96), Picture)]
    assert len(squares) == len(files)
    assert np.mean([bool(shape_flags(square, square)) for square in squares]) < 0.01
    assert np.mean([contrast(255 - square) <= 0 for square in squares]) > 0.99


def test_a_flag_is_told_in_every_form_of_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png(photo(), tmp_path / "photo.png")
    words: list[str | Path] = [tmp_path / "photo.png", "--csv", tmp_path / "a.csv"]
    found = predicted(monkeypatch, tmp_path / "a.json", *words)
    assert found["images"][0]["flags"][0].startswith("colour in ")
    assert pd.read_csv(tmp_path / "a.csv")["flags"][0].startswith("colour in ")
    assert "1 flagged" in capsys.readouterr().out
    call_here(monkeypatch, tmp_path / "photo.png")
    assert "flagged: colour in " in capsys.readouterr().out


def test_heat_maps_are_the_members_mean_over_the_picture(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = names_of(project)[0]
    words: list[str | Path] = [f"images/{name}", "--heatmaps", tmp_path, "--class", "Edema"]
    found = predicted(monkeypatch, tmp_path / "a.json", *words)
    path = tmp_path / f"{Path(name).stem}.Edema.png"
    assert found["images"][0]["heat_maps"] == [str(path)]
    pixels = torch.from_numpy(np.load("data/images.npy")[:1]).unsqueeze(1) / 255
    column = torch.tensor([CLASSES.index("Edema")])
    members = [load_model(Path(f"data/models/test_resnet-{seed}.safetensors"))[0] for seed in (1, 2)]
    heat = np.mean([layer_cam(member, pixels, column)[0].numpy() for member in members], axis=0)
    picture = read_picture(project / "images" / name, SIDE, is_shown=True)
    assert isinstance(picture, Picture)
    written = np.asarray(Image.open(path)).astype(int)
    assert written.shape == (2 * SIDE, 3 * SIDE, 3)
    assert np.abs(written - overlay(picture.shown, heat)).max() <= 1


def test_without_thresholds_the_most_probable_class_is_mapped(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = "data/models/test_resnet-1.safetensors"
    found = predicted(monkeypatch, tmp_path / "a.json", "images", "--heatmaps", tmp_path, "--model", model)
    for image in found["images"]:
        highest = max(image["probabilities"], key=image["probabilities"].get).replace(" ", "_")
        assert [Path(path).name.split(".")[1] for path in image["heat_maps"]] == [highest]


def test_a_heat_map_colours_where_it_is_high_and_nothing_else() -> None:
    shown, heat = np.full((40, 60), 100, np.uint8), np.zeros((8, 8))
    assert np.array_equal(overlay(shown, heat), np.full((40, 60, 3), 100))
    heat[:, 4:] = 7
    drawn = overlay(shown, heat)
    assert drawn.shape == (40, 60, 3)
    assert np.all(drawn[:, :15] == 100)
    assert np.ptp(drawn[:, 45:].astype(int), axis=2).min() > 50


def test_heat_maps_never_replace_an_input_or_each_other(tmp_path: Path) -> None:
    mine = png(chest(), tmp_path / "a.Mass.png")
    before = mine.read_bytes()
    overlays = Overlays(tmp_path, [mine])
    written = [overlays.write(Path(folder, "a.dcm"), chest(), "Mass", np.ones((4, 4))) for folder in "xy"]
    assert [path.name for path in written] == ["a.Mass-2.png", "a.Mass-3.png"]
    assert mine.read_bytes() == before
    assert Overlays(tmp_path, [mine]).write(Path("a.png"), chest(), "Mass", np.ones((4, 4))) == written[0]


# DICOM. Every file is made here, with pydicom's writer.


def dicom(path: Path, values: NDArray[Any], **attributes: Any) -> Path:
    """Write `values`, uint16 or int16 [height, width], as a DICOM file with `attributes`."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM is optional: pip install -r requirements-predict.txt")
    syntax = attributes.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    about = pydicom.dataset.FileMetaDataset()
    about.TransferSyntaxUID = syntax
    about.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    about.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = about
    dataset.SOPClassUID, dataset.SOPInstanceUID = about.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows, dataset.Columns = values.shape
    bits = 8 * values.itemsize
    dataset.BitsAllocated = bits
    dataset.BitsStored = attributes.pop("BitsStored", bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = attributes.pop("PixelData", values.tobytes())
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(path: Path, size: int) -> NDArray[np.uint8]:
    picture = read_picture(path, size)
    assert isinstance(picture, Picture), picture
    return picture.square


def reason(path: Path) -> str:
    failure = read_picture(path, 32)
    assert isinstance(failure, Failure)
    return failure.reason


def ramp(lowest: int, highest: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.linspace(lowest, highest, 32 * 32).round().astype(dtype).reshape(32, 32)


def test_a_dicom_file_of_a_png_is_the_same_picture_whatever_its_name(tmp_path: Path) -> None:
    pixels = chest(32)
    for name in ("a.dcm", "a"):
        path = dicom(tmp_path / name, pixels, WindowCenter=128, WindowWidth=256)
        assert np.array_equal(read(path, 32), pixels)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_window_and_monochrome1_are_the_standards(tmp_path: Path, kind: str) -> None:
    values = ramp(0, 4095)
    path = dicom(
        tmp_path / "a.dcm", values, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[2000, 50],
        WindowWidth=[3000, 9], PhotometricInterpretation=kind,
    )  # fmt: skip
    # PS3.3 C.11.2.1.2.1, of the first window.
    shown = ((values * 2.0 - 1000 - (2000 - 0.5)) / (3000 - 1) + 0.5).clip(0, 1)
    expected = 255 * (1 - shown if kind == "MONOCHROME1" else shown)
    assert np.abs(read(path, 32) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("lowest", "highest", "dtype"), [(100, 3000, "uint16"), (-2000, 500, "int16"), (7, 7, "uint16")]
)
def test_without_a_window_the_values_range_is_shown(tmp_path: Path, lowest: int, highest: int, dtype: str) -> None:
    values = ramp(lowest, highest, dtype)
    expected = 255 * (values - float(lowest)) / max(highest - lowest, 1)
    assert np.abs(read(dicom(tmp_path / "a.dcm", values), 32) - expected).max() <= 0.51


def test_a_voi_table_is_looked_up(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    values, table = ramp(0, 255), (np.arange(256) ** 2 // 16).astype(np.uint16)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 12], table.tobytes()
    path = dicom(
        tmp_path / "a.dcm",
        values,
        VOILUTSequence=pydicom.Sequence([item]),
        WindowCenter=9,
        WindowWidth=9,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    assert np.abs(read(path, 32) - table[values] / 4095 * 255).max() <= 0.51


def test_a_jpeg_within_is_decoded_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    stream = io.BytesIO()
    Image.fromarray(chest(32)).save(stream, "JPEG", quality=95)
    packed = pydicom.encaps.encapsulate([stream.getvalue()])
    path = dicom(
        tmp_path / "a.dcm", chest(32), PixelData=packed, syntax=pydicom.uid.JPEGBaseline8Bit,
        WindowCenter=128, WindowWidth=256,
    )  # fmt: skip
    assert np.array_equal(read(path, 32), np.asarray(Image.open(stream)))
    path = dicom(tmp_path / "b.dcm", chest(32), PixelData=packed, syntax=pydicom.uid.JPEGLSLossless)
    assert "its pixels cannot be read: JPEG-LS Lossless" in reason(path)


def test_other_dicom_files_are_flagged_or_named(tmp_path: Path) -> None:
    def flags(**attributes: Any) -> tuple[str, ...]:
        picture = read_picture(dicom(tmp_path / "a.dcm", chest(32), **attributes), 32)
        assert isinstance(picture, Picture)
        return picture.flags

    assert flags(ViewPosition="PA", Modality="DX", BodyPartExamined="CHEST") == flags() == flags(ViewPosition="") == ()
    assert flags(ViewPosition="LL") == ("ViewPosition is LL",)
    assert flags(ViewPosition="LATERAL", Modality="CT") == ("ViewPosition is LATERAL", "Modality is CT")
    two = np.concatenate([chest(32), chest(32)]).tobytes()
    for attributes, message in (
        ({"NumberOfFrames": 2, "PixelData": two}, "of 2 frames, not of one picture"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is PALETTE COLOR, not MONOCHROME1"),
        ({"PixelData": b"12"}, "its pixels cannot be read"),
    ):
        assert message in reason(dicom(tmp_path / "b.dcm", chest(32), **attributes))
    (tmp_path / "c.dcm").write_bytes(b"nothing of the kind")
    assert "not a DICOM file" in reason(tmp_path / "c.dcm")


def test_a_dicom_file_without_a_picture_or_that_swells_is_named(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", chest(32))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    assert reason(path) == "a DICOM file without a picture"
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = dicom(tmp_path / "b.dcm", np.zeros((4096, 4096), np.uint16), syntax=syntax)
    assert path.stat().st_size < 100_000
    assert "deflated as a whole" in reason(path)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of what it mends
@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_of_any_kind_is_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a"
    if data.draw(st.booleans()):
        dicom(path, chest(32), WindowCenter=128, WindowWidth=256, RescaleSlope=1, RescaleIntercept=0)
    else:
        kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
        Image.fromarray(photo()).save(path, format=kind)
    file = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, min(len(file), 900) - 1), min_size=1, max_size=4)):
        file[place] = data.draw(st.integers(0, 255))
    path.write_bytes(file[: data.draw(st.integers(len(file) // 2, len(file)))])
    found = read_picture(path, 32)
    assert found.reason if isinstance(found, Failure) else found.square.shape == (32, 32)


def test_without_pydicom_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "tools.predict.dicom", raising=False)
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match=r"pip install -r requirements-predict\.txt"):
        read_picture(tmp_path / "a", 32)
