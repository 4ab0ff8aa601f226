"""`tools.predict`, run as a user runs it, with two tiny networks that the stages trained on PNGs."""

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
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.evaluation.decisions import Decisions
from cxr.images.limits import MAX_BYTES
from cxr.inference.saliency import layer_cam
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.model_file import load_model, save_model
from cxr.reporting.overlay import overlay
from tests.fixtures.planted import SIDE
from tests.fixtures.project import ROOT
from tests.fixtures.radiographs import chest, dicom, photo, png_of_size
from tests.fixtures.stages import error_of, files_in
from tests.fixtures.terminal import assert_bar_shown, simulate_terminal
from tests.fixtures.trained import names_of, train_project
from tools.predict import command
from tools.predict.inputs import find_files
from tools.predict.ood_checks import COLOUR_FRACTION, colour_fraction, contrast, shape_warnings
from tools.predict.output import NOT_CLINICAL, SYNTHETIC
from tools.predict.overlays import OverlayFolder
from tools.predict.reading import Failure, InputImage, read_image

BATCH = 16
TTA_PARAMS = {"hflip": True, "translate": 0.05, "scale": 0, "five_crop": 0}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where resize, train and evaluate have run on PNGs of four kinds, with two members and TTA."""
    folder = tmp_path_factory.mktemp("project")
    train_project(folder, batch_size=BATCH, tta=TTA_PARAMS)
    return folder


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "project" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("project"))


@pytest.fixture
def evaluated(project: Path) -> pd.DataFrame:
    """The probabilities of evaluate before calibration, indexed by image."""
    return pd.read_csv(project / "data/predictions.csv", index_col="image")[list(CLASSES)]


def run_predict(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    process = [sys.executable, "-m", "tools.predict", *args]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def predict_here(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> None:
    """Run the command in this process, which is faster."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, args)])
    command.main()


def predicted(monkeypatch: pytest.MonkeyPatch, path: Path, *args: str | Path) -> dict[str, Any]:
    predict_here(monkeypatch, *args, "--json", path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def probabilities(found: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([[image["probabilities"][name] for name in CLASSES] for image in found["images"]])


def png(pixels: NDArray[Any], path: Path) -> Path:
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def test_the_input_of_the_networks_is_the_output_of_resize(project: Path) -> None:
    images = np.load("data/images.npy")
    for row, name in enumerate(names_of(project)):
        image = read_image(project / "images" / name, SIDE)
        assert isinstance(image, InputImage)
        assert np.array_equal(image.pixels, images[row])


def test_probabilities_are_those_of_evaluate_after_calibration(
    project: Path, evaluated: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = predicted(
        monkeypatch, tmp_path / "a.json", *(f"images/{name}" for name in evaluated.index), "--batch-size", str(BATCH)
    )
    decisions = json.loads(Path("data/decisions.json").read_text())
    expected = Decisions.read(Path("data/decisions.json")).calibration.apply(evaluated.to_numpy())
    np.testing.assert_allclose(probabilities(found), expected, rtol=1e-9)
    assert [image["file"] for image in found["images"]] == [f"images/{name}" for name in evaluated.index]
    is_predicted = evaluated.to_numpy() >= decisions["thresholds"]
    assert is_predicted.any()
    for image, row in zip(found["images"], is_predicted, strict=True):
        assert image["predicted_positive"] == [name for name, positive in zip(CLASSES, row, strict=True) if positive]
    assert list(found["thresholds"].values()) == decisions["calibrated_thresholds"]
    assert found["calibrated"]
    assert (found["failed"], found["note"]) == ([], NOT_CLINICAL)


def test_a_single_image_gets_the_same_probabilities_and_a_printed_table(
    project: Path,
    evaluated: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = evaluated.index[3]
    predict_here(monkeypatch, f"images/{name}", "--saliency-maps", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"images/{name}"
    decisions = Decisions.read(project / "data/decisions.json")
    expected = decisions.calibration.apply(evaluated.loc[[name]].to_numpy())[0]
    rows = {line[2:22].strip(): line for line in lines if line[2:22].strip() in CLASSES}
    for column, title in enumerate(CLASSES):
        assert float(rows[title].split()[-2]) == pytest.approx(expected[column], abs=0.0011)
    marked = {title for title in CLASSES if rows[title].startswith("*")}
    assert marked == {
        title for title in CLASSES if evaluated.loc[name, title] >= decisions.thresholds[CLASSES.index(title)]
    }
    assert files_in(tmp_path) == {f"{Path(name).stem}.{title.replace(' ', '_')}.png" for title in marked}
    assert lines[-1] == NOT_CLINICAL
    assert lines[-2].startswith("1 image, 1 with warnings. Calibrated")


def test_each_of_many_images_has_a_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_here(monkeypatch, "images")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 160 + 2
    assert [line.split()[0] for line in lines[:160]] == [f"images/{name}" for name in names_of(project)]
    assert lines[-2].startswith("160 images")
    assert "Calibrated probabilities of 2 networks (test_resnet-1, test_resnet-2)" in lines[-2]


def test_a_broken_file_among_a_thousand_is_reported_and_the_others_are_predicted(project: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"images/{number:03d}.png" for number in range(1000)]
    files[0].parent.mkdir()
    for file, name in zip(files, cycle(names_of(project)), strict=False):
        shutil.copyfile(project / "images" / name, file)
    broken = files.pop(740)
    broken.write_bytes(broken.read_bytes()[:900])
    args = ("--csv", str(tmp_path / "a.csv"), "--model", "data/models/test_resnet-1.safetensors")
    done = run_predict(project, str(broken.parent), *args)
    assert error_of(done) == "error: 1 of 1,000 files cannot be read: see the warnings above\n"
    (warning,) = re.findall("warning: (.*)", done.stderr)
    assert warning.startswith(f"{broken}: ")
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table["file"]) == list(map(str, files))
    assert list(table.columns) == ["file", *CLASSES, "predicted_positive", "warnings"]
    assert table[list(CLASSES)].notna().all(axis=None)
    assert "999 images" in done.stdout
    assert "1 unreadable" in done.stdout


def test_a_terminal_shows_lines_and_warnings_above_a_bar_with_the_time_left(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = simulate_terminal(monkeypatch)
    (tmp_path / "a.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match="1 of 161 files"):
        predict_here(monkeypatch, "images", tmp_path)
    assert_bar_shown(terminal.getvalue(), "predict")
    # The bar is wiped from its line before the warning takes it.
    assert f"\rwarning: {tmp_path / 'a.png'}: not a PNG or JPEG image\n" in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 160 + 2


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_the_table_is_empty_if_no_file_can_be_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="1 of 1 files cannot be read"):
        predict_here(monkeypatch, tmp_path / "a.png", "--csv", tmp_path / "a.csv")
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
    assert all(image["predicted_positive"] == [] for image in found["images"])
    assert (
        "Uncalibrated probabilities of test_resnet-2; data/decisions.json has no thresholds" in capsys.readouterr().out
    )


def test_members_are_recognised_by_their_content_in_any_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies = [shutil.copyfile(f"data/models/test_resnet-{seed}.safetensors", tmp_path / f"{seed}") for seed in (2, 1)]
    default = predicted(monkeypatch, tmp_path / "a.json", "images")
    named = predicted(monkeypatch, tmp_path / "b.json", "images", "--model", *copies)
    assert named["calibrated"]
    np.testing.assert_allclose(probabilities(named), probabilities(default), rtol=1e-12)


def test_missing_or_outdated_decisions_name_the_command_to_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, model = (project / path for path in ("images/00000000_000.png", "data/models/test_resnet-1.safetensors"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no data/decisions.json; run `dvc repro`.* give model files"):
        predict_here(monkeypatch, image)
    assert not predicted(monkeypatch, tmp_path / "a.json", image, "--model", model)["calibrated"]
    (tmp_path / "data").mkdir()
    content = json.loads((project / "data/decisions.json").read_text())
    for change, message in (
        ({"tta": None}, r"written by another version of this project \(tta: "),
        ({"classes": ["Edema"]}, r"written by another version of this project \(classes: "),
        ({}, r"written by another version of this project \(sha256: Field required\); run `dvc repro`"),
    ):
        altered = {**content, **change}
        if not change:
            del altered["sha256"]
        (tmp_path / "data/decisions.json").write_text(json.dumps(altered))
        with pytest.raises(InputError, match=message):
            predict_here(monkeypatch, image)


def test_missing_model_files_name_the_commands_that_restore_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    shutil.copyfile(project / "data/decisions.json", tmp_path / "data/decisions.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"no data/models/test_resnet-1\.safetensors, .*`git checkout \. && dvc checkout --force`"
    ):
        predict_here(monkeypatch, project / "images/00000000_000.png")


def test_networks_trained_on_synthetic_images_are_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project / "data/models", tmp_path / "data/models")
    shutil.copyfile(project / "data/decisions.json", tmp_path / "data/decisions.json")
    image = project / "images/00000000_000.png"
    monkeypatch.chdir(tmp_path)
    decisions = Decisions.read(Path("data/decisions.json"))
    for synthetic in (False, True):
        decisions.model_copy(update={"synthetic": synthetic}).write(Path("data/decisions.json"))
        assert predicted(monkeypatch, tmp_path / "a.json", image)["synthetic"] == synthetic
        assert (SYNTHETIC in capsys.readouterr().out) == synthetic
    model = "data/models/test_resnet-1.safetensors"
    assert predicted(monkeypatch, tmp_path / "a.json", image, "--model", model)["synthetic"] is None


def test_probabilities_are_corrected_to_a_stated_prevalence(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = Decisions.read(Path("data/decisions.json"))
    fitted = [name for name, reason in zip(CLASSES, decisions.calibration.not_fitted, strict=True) if not reason]
    name = fitted[0]
    column, old = CLASSES.index(name), decisions.prevalence[CLASSES.index(name)]
    before = predicted(monkeypatch, tmp_path / "a.json", "images")
    after = predicted(monkeypatch, tmp_path / "b.json", "images", "--prevalence", f"{name}=0.02")
    assert f"Corrected to the stated prevalence: {name} 0.02." in capsys.readouterr().out
    odds = probabilities(before)[:, column] / (1 - probabilities(before)[:, column]) * (0.02 / 0.98) * (1 - old) / old
    np.testing.assert_allclose(probabilities(after)[:, column], odds / (1 + odds))
    np.testing.assert_array_equal(
        np.delete(probabilities(after), column, 1), np.delete(probabilities(before), column, 1)
    )
    assert [one["predicted_positive"] for one in after["images"]] == [
        one["predicted_positive"] for one in before["images"]
    ]
    assert after["thresholds"][name] < before["thresholds"][name]
    assert after["prevalence"] == {name: 0.02}
    for wrong in ("Mass", "Mass=0", "Mass=1.5", "Bone=0.1", "Mass=nan"):
        with pytest.raises(InputError, match=f"--prevalence {wrong}: give each class once as CLASS=FRACTION"):
            predict_here(monkeypatch, "images", "--prevalence", wrong)
    model = project / "data/models/test_resnet-1.safetensors"
    with pytest.raises(InputError, match=r"--prevalence corrects calibrated probabilities, and .* has no calibration"):
        predict_here(monkeypatch, "images", "--prevalence", "Mass=0.1", "--model", model)


def test_networks_of_two_image_sizes_are_rejected(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Architecture("test_resnet", 1, 48)
    save_model(build_classifier(other), other, {}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"test_resnet-1\.safetensors 32 px.*other\.safetensors 48 px"):
        predict_here(
            monkeypatch, "images", "--model", "data/models/test_resnet-1.safetensors", tmp_path / "other.safetensors"
        )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonesuch.png"], "nonesuch.png: there is no such file"),
        (["data/models"], "data/models: it contains no image"),
        (["images", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["images", "--class", "Mass"], "--class Mass: .*--saliency-maps DIR"),
        (["images", "--csv", "images"], "--csv images: this is a folder"),
        (["images", "--csv", "params.yaml/a.csv"], "--csv: params.yaml is not a folder that can be written to"),
        (["images", "--csv", "a.csv", "--json", "./a.csv"], "--csv a.csv: --json names the same file"),
        (["images", "--json", "images/00000003_000.png"], "--json .*: this is one of the images"),
        (["images", "--saliency-maps", "params.yaml"], "--saliency-maps params.yaml: this is a file"),
        (["images", "--saliency-maps", "params.yaml/maps"], "--saliency-maps: .*/params.yaml is not a folder"),
    ],
)
def test_wrong_arguments_are_reported_before_any_work(
    project: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    before = files_in(project)
    with pytest.raises(InputError, match=message):
        predict_here(monkeypatch, *args)
    assert files_in(project) == before


def test_files_folders_and_patterns_name_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "sub/c.dcm", "sub/d", "sub/e.txt", ".hidden/f.png", "sub/.g.png", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*inputs: str) -> list[str]:
        return [str(path) for path in find_files(inputs)]

    assert found(".") == ["[1].png", "a.JPG", "b.png", "sub/c.dcm", "sub/d"]
    assert found("b.png", ".", "sub/e.txt") == ["b.png", "[1].png", "a.JPG", "sub/c.dcm", "sub/d", "sub/e.txt"]
    assert found("**/*.dcm", "[1].png", str(tmp_path / "*.png")) == ["sub/c.dcm", "[1].png", str(tmp_path / "b.png")]


def test_dicom_files_with_any_name_are_found_in_a_folder_and_other_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1.2.840.113619.2.5.123", "sub/1.2.840.113619.2.5.77"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        dicom(tmp_path / name, chest(32), WindowCenter=128, WindowWidth=256)
    (tmp_path / "1.2.3.4").write_bytes(bytes(128) + b"DIC")
    (tmp_path / "sub/notes.txt").touch()
    os.mkfifo(tmp_path / "pipe.123")
    files = find_files([str(tmp_path)])
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "1.2.840.113619.2.5.123",
        "sub/1.2.840.113619.2.5.77",
    ]
    assert all(isinstance(read_image(path, 32), InputImage) for path in files)
    message = f"warning: {tmp_path}: not PNG, JPEG or DICOM, so left out: 1.2.3.4, pipe.123, sub/notes.txt\n"
    assert capsys.readouterr().err == message


@pytest.mark.timeout(60)
def test_no_file_of_a_folder_ends_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    Image.fromarray(chest()).save(tmp_path / "avif.png", format="AVIF")
    Image.fromarray(chest().astype(np.float32)).save(tmp_path / "float.png", format="TIFF")
    (tmp_path / "tall.png").write_bytes(png_of_size(1, 67_000_000))
    with (tmp_path / "large.dcm").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    dicom(tmp_path / "rgb.dcm", chest(32), SamplesPerPixel=3, PlanarConfiguration=0, PixelData=bytes(3072))
    dicom(tmp_path / "bit.dcm", chest(32), BitsAllocated=1, BitsStored=1, PixelData=bytes(128))
    dicom(tmp_path / "kind.dcm", chest(32), PhotometricInterpretation=None)
    shutil.copyfile(project / "images" / names_of(project)[0], tmp_path / "z.png")
    with pytest.raises(InputError, match="10 of 11 files cannot be read"):
        predict_here(monkeypatch, tmp_path, "--csv", tmp_path / "a.csv")
    assert list(pd.read_csv(tmp_path / "a.csv")["file"]) == [str(tmp_path / "z.png")]
    assert len(capsys.readouterr().err.splitlines()) == 10


def test_looping_links_are_named_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "sub/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # Two links: if they were followed, there would be 2 ** 40 paths.
    for name in ("sub/loop", "sub/again"):
        (tmp_path / name).symlink_to("..")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "sub/nowhere.png").symlink_to("nonesuch")
    files = ["a.png", "itself.png", "sub/deep/b.png", "sub/nowhere.png"]
    for pattern in (".", "**/*.png", str(tmp_path / "**/*.png"), "**/**/*.png", "**"):
        found = [os.path.relpath(path) for path in find_files([pattern])]
        assert found == files
        assert "warning: " in (printed := capsys.readouterr().err)
        assert "sub/loop: a link to a folder is not followed; give it as an input" in printed
    assert [str(path) for path in find_files(["itself.png", "sub/loop/*.png"])] == ["itself.png", "sub/loop/a.png"]
    assert all(isinstance(read_image(tmp_path / name, 32), Failure) for name in ("itself.png", "sub/nowhere.png"))


ODD_NAMES = tuple(
    f"{name}.png" for name in ("=cmd|'a'!A1", "+1", "-1", "@a", "\t=1", " =1", 'a\nb,"c', "\x1b[2Ja", "\udcff")
)


def test_odd_names_are_escaped_in_every_form_of_output(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = (project / "images" / names_of(project)[0]).read_bytes()
    for name in ODD_NAMES:
        (tmp_path / name).write_bytes(image)
    (tmp_path / "\x1b[3J.png").write_bytes(b"")
    shutil.copytree(project / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for args in (["."], [".", "--csv", "a.csv", "--json", "a.json"]):
        with pytest.raises(InputError, match=f"1 of {len(ODD_NAMES) + 1} files"):
            predict_here(monkeypatch, *args)
    predict_here(monkeypatch, "\udcff.png", "a\nb*")
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "warning: \\x1b[3J.png: " in printed.err
    assert printed.out.count("\\udcff.png") == printed.out.count("a\\nb") == 2
    names = list(pd.read_csv(tmp_path / "a.csv", dtype=str)["file"])
    assert not any(name.startswith(("=", "+", "-", "@", "\t", " ")) for name in names)
    assert [name for name in names if not (tmp_path / name).is_file()] == ["\\udcff.png"]
    assert len(set(names)) == len(ODD_NAMES)
    assert {one["file"] for one in json.loads((tmp_path / "a.json").read_text())["images"]} == set(ODD_NAMES)


def test_predictions_for_standard_output_are_not_mixed_with_the_summary(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [Path("images") / name for name in names_of(project)[:3]]
    for option in ("--csv", "--json"):
        predict_here(monkeypatch, *images, option, "/dev/stdout")
        printed = capfd.readouterr()
        assert printed.err.startswith("3 images")
        predict_here(monkeypatch, *images, option, tmp_path / "file")
        assert printed.out == (tmp_path / "file").read_text()
        capfd.readouterr()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_colour_is_detected_and_gray_in_three_channels_is_not(form: str) -> None:
    def file(pixels: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form)
        return stream.getvalue()

    assert colour_fraction(file(photo())) > 0.5
    assert colour_fraction(file(np.dstack([chest(128)] * 3))) == 0
    marked = np.dstack([chest(128)] * 3)
    marked[:16, :32] = (255, 0, 0)
    assert 0 < colour_fraction(file(marked)) < COLOUR_FRACTION


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_rotated_by_its_exif_orientation(tmp_path: Path, orientation: int) -> None:
    pixels = chest(64)[:, :48]
    # The displayed image for the stored one: EXIF 2.3, 4.6.4 A, tag 274.
    expected = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    stored = Image.fromarray(pixels)
    stored.getexif()[274] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, exif=stored.getexif())
    image = read_image(tmp_path / "a.jpg", 32, with_display=True)
    assert isinstance(image, InputImage)
    assert image.display is not None
    assert image.display.shape == expected.shape
    assert np.abs(image.display.astype(int) - expected).mean() < 4


def test_unusual_aspect_ratios_and_inverted_images_get_warnings(tmp_path: Path) -> None:
    for pixels, expected in (
        (chest(), []),
        (255 - chest(), ["layout unlike"]),
        (np.full((64, 64), 90, np.uint8), ["layout unlike"]),
        (np.repeat(chest(), 2, axis=1), ["unusual aspect ratio, 128 x 64"]),
        (np.repeat(chest(), 2, axis=0), ["unusual aspect ratio, 64 x 128"]),
        (np.repeat(255 - chest(), 2, axis=0), ["unusual aspect ratio", "layout unlike"]),
    ):
        image = read_image(png(pixels, tmp_path / "a.png"), 96)
        assert isinstance(image, InputImage)
        assert len(image.warnings) == len(expected)
        assert all(warning.startswith(start) for warning, start in zip(image.warnings, expected, strict=True))


@pytest.mark.real_data
def test_real_images_pass_and_get_warnings_when_inverted(shared: Path) -> None:
    files = sorted((shared / "nih-mini/images").glob("*.png"))[::6]
    images = [image.pixels for file in files if isinstance(image := read_image(file, 96), InputImage)]
    assert len(images) == len(files)
    assert np.mean([bool(shape_warnings(pixels, pixels)) for pixels in images]) < 0.01
    assert np.mean([contrast(255 - pixels) <= 0 for pixels in images]) > 0.99


def test_a_warning_is_in_every_form_of_output(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png(photo(), tmp_path / "photo.png")
    args: list[str | Path] = [tmp_path / "photo.png", "--csv", tmp_path / "a.csv"]
    found = predicted(monkeypatch, tmp_path / "a.json", *args)
    assert found["images"][0]["warnings"][0].startswith("colour in ")
    assert pd.read_csv(tmp_path / "a.csv")["warnings"][0].startswith("colour in ")
    assert "1 with warnings" in capsys.readouterr().out
    predict_here(monkeypatch, tmp_path / "photo.png")
    assert "warning: colour in " in capsys.readouterr().out


def test_a_saliency_map_is_the_mean_of_the_members(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = names_of(project)[0]
    args: list[str | Path] = [f"images/{name}", "--saliency-maps", tmp_path, "--class", "Edema"]
    found = predicted(monkeypatch, tmp_path / "a.json", *args)
    path = tmp_path / f"{Path(name).stem}.Edema.png"
    assert found["images"][0]["saliency_maps"] == [str(path)]
    pixels = torch.from_numpy(np.load("data/images.npy")[:1]).unsqueeze(1) / 255
    column = torch.tensor([CLASSES.index("Edema")])
    members = [load_model(Path(f"data/models/test_resnet-{seed}.safetensors"))[0] for seed in (1, 2)]
    saliency = np.mean([layer_cam(member, pixels, column)[0].numpy() for member in members], axis=0)
    image = read_image(project / "images" / name, SIDE, with_display=True)
    assert isinstance(image, InputImage)
    written = np.asarray(Image.open(path)).astype(int)
    assert written.shape == (2 * SIDE, 3 * SIDE, 3)
    assert np.abs(written - overlay(image.display, saliency)).max() <= 1


def test_without_thresholds_the_most_probable_class_gets_a_saliency_map(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = "data/models/test_resnet-1.safetensors"
    found = predicted(monkeypatch, tmp_path / "a.json", "images", "--saliency-maps", tmp_path, "--model", model)
    for image in found["images"]:
        highest = max(image["probabilities"], key=image["probabilities"].get).replace(" ", "_")
        assert [Path(path).name.split(".")[1] for path in image["saliency_maps"]] == [highest]


def test_overlays_replace_neither_inputs_nor_each_other(tmp_path: Path) -> None:
    def image(path: Path) -> InputImage:
        return InputImage(path, chest(), (), chest())

    mine = png(chest(), tmp_path / "a.Mass.png")
    before = mine.read_bytes()
    folder = OverlayFolder(tmp_path, [mine])
    written = [folder.write(image(Path(parent, "a.dcm")), "Mass", np.ones((4, 4))) for parent in "xy"]
    assert [path.name for path in written] == ["a.Mass-2.png", "a.Mass-3.png"]
    assert mine.read_bytes() == before
    assert OverlayFolder(tmp_path, [mine]).write(image(Path("a.png")), "Mass", np.ones((4, 4))) == written[0]
