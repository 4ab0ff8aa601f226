"""The page without a browser: what it says, whom it asks, and how the command ends; `test_app_browser.py` opens it."""

import base64
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from starlette.formparsers import MultiPartParser

from cxr.core.errors import InputError
from cxr.core.files import write_json
from cxr.core.labels import CLASSES
from cxr.evaluation.thresholds import Rule
from tests.fixtures.planted import write_planted_params
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of
from tests.fixtures.trained import names_of, train_project
from tools.app import command
from tools.app.drawing import data_url, draw, rows
from tools.app.record import Record
from tools.app.samples import pick, read_samples
from tools.app.service import Asked, Desk, is_known_kind, service
from tools.app.words import complement, facts, share, threshold
from tools.predict.ensemble import Ensemble
from tools.predict.predicting import Answer, predict_files
from tools.predict.reading import Failure

UNDEFINED = {"value": None, "low": None, "high": None}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    train_project(folder)
    return folder


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The trained project as the working folder."""
    monkeypatch.chdir(project)
    service.cache_clear()
    yield project
    service.cache_clear()


@pytest.fixture
def copy(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a copy, to break."""
    folder = shutil.copytree(here, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def make_record(rule: Rule = "f1", *, threshold: float = 0.2, synthetic: bool = True) -> Record:
    """A record where every entry is the same, but for a PPV that is undefined."""
    entry = {"value": 0.8, "low": 0.7, "high": 0.95}
    point = {"threshold": threshold, "sensitivity": entry, "specificity": entry, "ppv": UNDEFINED, "npv": entry}
    counts = dict.fromkeys(CLASSES, 1180), dict.fromkeys(CLASSES, 80)
    each = dict.fromkeys(CLASSES, entry), dict.fromkeys(CLASSES, point)
    return Record(synthetic, 1180, 98, rule, entry, 15, *counts, *each)


# Whom it asks, and what.


def test_the_answers_are_those_of_tools_predict_bit_for_bit(here: Path) -> None:
    asked_of = service()
    assert asked_of is service()
    files = [Path("images") / name for name in names_of(here)[:6]]
    expected = [next(predict_files([file], asked_of.desk.ensemble, 32)) for file in files]
    with ThreadPoolExecutor(len(files)) as visitors:
        found = list(visitors.map(lambda file: asked_of.desk.ask(file.read_bytes(), file.name), files))
    for asked, answer in zip(found, expected, strict=True):
        assert isinstance(asked, Asked)
        assert isinstance(answer, Answer)
        assert np.array_equal(asked.answer.probabilities, answer.probabilities)
        assert np.array_equal(asked.answer.called, answer.called)
        assert asked.answer.flags == answer.flags
    decisions = json.loads(Path("data/decisions.json").read_text())
    assert list(asked_of.thresholds.values()) == decisions["calibrated_thresholds"]


def test_a_class_that_was_not_learned_is_not_listed() -> None:
    probabilities = np.where(np.arange(15) == 3, np.nan, 0.25)
    answer = Answer(Path("a"), probabilities, probabilities > 0.2, (), ())
    listed = rows(answer, {name: 0.2 for name in CLASSES if name != CLASSES[3]}, make_record())
    assert {row.name for row in listed} == set(CLASSES) - {CLASSES[3]}


def test_the_record_is_what_evaluate_measured_on_test(here: Path) -> None:
    known, table = service().record, pd.read_csv("data/sample.csv")
    test = table[pd.read_csv("data/split.csv")["split"] == "test"]
    assert known.positives == {name: test[name].sum() for name in CLASSES}
    assert (known.images, known.patients) == (len(test), test["patient"].nunique())
    assert known.mean_auroc == json.loads(Path("metrics/intervals.json").read_text())["auroc"]["mean_15"]
    assert known.points == json.loads(Path("metrics/operating_points.json").read_text())["classes"]
    assert (known.rule, known.synthetic, known.classes_in_mean) == ("f1", False, 15)


class Slow:
    """An ensemble that answers with an image's gray level, and notes how many ask it at once, and in what thread."""

    image_size, decisions = 8, None

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.threads: set[int] = set()

    def predict(self, squares: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.threads.add(threading.get_ident())
        time.sleep(0.01)
        self.inside -= 1
        return np.full((len(squares), len(CLASSES)), squares[0, 0, 0] / 255)


def desk_of(ensemble: Any) -> Desk:
    return Desk(ensemble)


def test_of_many_visitors_each_gets_the_own_answer_and_one_thread_computes() -> None:
    slow, levels = Slow(), np.arange(0, 250, 10, dtype=np.uint8)
    desk = desk_of(slow)
    with ThreadPoolExecutor(len(levels)) as visitors:
        found = list(visitors.map(lambda level: desk.ask(png(np.full((9, 9), level, np.uint8)), "a.png"), levels))
    answers = [asked.answer for asked in found if isinstance(asked, Asked)]
    assert [answer.probabilities[0] * 255 for answer in answers] == pytest.approx(levels)
    assert (slow.most, len(slow.threads)) == (1, 1)


def test_short_memory_is_said_and_not_raised() -> None:
    class Full(Slow):
        def predict(self, squares: NDArray[np.uint8]) -> NDArray[np.float64]:
            raise InputError(f"memory is short for {len(squares)}")

    failure = desk_of(Full()).ask(png(np.zeros((9, 9), np.uint8)), "a.png")
    assert failure == Failure(Path("a.png"), "memory is short for 1")


def bomb(width: int, height: int) -> bytes:
    """A PNG of no pixels that claims to have many, and is right in all else."""
    chunks = ((b"IHDR", struct.pack(">II5B", width, height, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b""))
    written = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + written


@pytest.mark.parametrize(
    ("file", "name", "reason"),
    [
        (b"", "a.png", "an empty file"),
        (b"", "a.dcm", "an empty file"),
        (b"Dear colleague,", "a.txt", "neither a PNG, nor a JPEG, nor a DICOM file"),
        (b"GIF89a" + bytes(99), "a.png", "neither a PNG, nor a JPEG, nor a DICOM file"),
        (png(np.zeros((64, 64), np.uint8))[:70], "a.png", "truncated"),
        (b"\xff\xd8\xff" + bytes(99), "a.jpg", "not an image"),
        (b"Dear colleague,", "a.DCM", "not a DICOM file"),
        (bytes(128) + b"DICM" + bytes(20), "a", "DICOM file"),
        (bomb(9000, 8000), "a.png", "9000 x 8000 pixels are too many for a radiograph"),
        (bomb(30_000, 30_000), "a.png", "exceeds limit"),
        (bomb(8000, 8000), "a.png", "truncated"),
    ],
)
def test_a_file_that_is_no_x_ray_is_named_with_the_reason(file: bytes, name: str, reason: str) -> None:
    failure = desk_of(Slow()).ask(file, name)
    assert isinstance(failure, Failure)
    assert reason in failure.reason


def test_only_the_three_kinds_reach_a_decoder() -> None:
    image, known = Image.new("L", (8, 8)), {"PNG", "JPEG"}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "EPS", "ICO", "WEBP"):
        stream = io.BytesIO()
        image.save(stream, kind)
        assert is_known_kind(stream.getvalue(), Path("a")) == (kind in known)
    assert is_known_kind(bytes(128) + b"DICM", Path("a"))
    assert is_known_kind(b"any", Path("a.DICOM"))
    assert not is_known_kind(b"", Path("a.dcm"))


# Samples.


def test_samples_are_test_images_one_of_each_class_with_few_labels(here: Path) -> None:
    table = pd.read_csv("data/sample.csv", index_col="image")[list(CLASSES)]
    test = table[pd.read_csv("data/split.csv", index_col="image")["split"] == "test"]
    samples = read_samples()
    assert len({sample.name for sample in samples}) == len(samples) == len(CLASSES)
    for name, sample in zip(CLASSES, samples, strict=True):
        assert sample.name in test.index
        assert name in sample.labels
        assert sample.labels == tuple(label for label in CLASSES if table.loc[sample.name, label])
        assert sample.file == Path("images", sample.name).read_bytes()
    assert len(samples[0].labels) == test[test[CLASSES[0]] == 1].sum(axis=1).min()


def test_a_class_that_no_test_image_has_gets_no_sample() -> None:
    table = pd.DataFrame(0, index=range(2), columns=list(CLASSES)).assign(image=["b.png", "a.png"])
    assert pick(table.assign(Edema=1)) == {"a.png": ("Edema",)}


def test_without_images_there_are_no_samples_and_a_warning(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = read_samples()[3].name
    write_planted_params(copy, raw_dir="elsewhere")
    assert read_samples() == []
    assert "warning: there are no samples to show: raw_dir: there is no folder elsewhere" in capsys.readouterr().err
    (copy / "elsewhere/images").mkdir(parents=True)
    shutil.copyfile(copy / "images" / name, copy / "elsewhere/images" / name)
    assert [sample.name for sample in read_samples()] == [name]
    (copy / "data/split.csv").unlink()
    assert read_samples() == []


# What it says.


def test_a_threshold_is_told_in_words() -> None:
    assert threshold("Mass", 0.3244, make_record()) == [
        "Mass is called from 0.324 on. Validation chose it: it is the threshold with the highest F1 there.",
        "On test it calls 80 % (70 to 95 %) of the 80 images labelled Mass, and 20 % (5 to 30 %) of the 1,100 others. "
        "Of the images that it calls, an undefined share are labelled Mass.",
        "AUROC 0.800 (0.700 to 0.950). In brackets are 95 % intervals.",
    ]
    rules: tuple[tuple[Rule, str], ...] = (
        ("youden", "the threshold with the highest sum of sensitivity and specificity"),
        ("sensitivity", "the highest threshold that reaches the wanted sensitivity"),
    )
    for rule, words in rules:
        assert words in threshold("Mass", 0.3, make_record(rule))[0]
    assert "Nothing chose it: validation had no image" in threshold("Mass", 0.3, make_record(threshold=0.5))[0]


def test_a_share_without_an_interval_says_so() -> None:
    assert share({"value": 0.125, "low": None, "high": None}) == "12 % (no interval)"
    assert share(UNDEFINED) == "an undefined share"
    assert complement(UNDEFINED) == UNDEFINED


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_share_of_all_others_has_the_interval_turned_round(values: list[float]) -> None:
    low, value, high = sorted(values)
    others = complement({"value": value, "low": low, "high": high})
    assert others["low"] <= others["value"] <= others["high"]
    assert others["value"] + value == pytest.approx(1)
    assert others["high"] - others["low"] == pytest.approx(high - low)


def test_whose_numbers_these_are_is_told(here: Path) -> None:
    ensemble: Ensemble = service().desk.ensemble
    told = facts(ensemble, make_record())
    assert told["Networks"] == "test_resnet-1, test_resnet-2; the mean of them"
    assert told["Sees"] == "32 × 32 pixels"
    assert told["Mean AUROC"].startswith("0.800 (0.700 to 0.950) over 15 classes")
    assert told["Measured on"].startswith("1,180 synthetic test images of 98 patients, who do not exist; none")
    real = facts(ensemble, make_record(synthetic=False))["Measured on"]
    assert real.startswith("1,180 test images of 98 patients; none")


def test_called_classes_come_first_and_the_most_probable_among_them() -> None:
    random = np.random.default_rng(0)
    probabilities, called = random.random(15), random.random(15) < 0.4
    answer = Answer(Path("a"), probabilities, called, (), ())
    listed = rows(answer, dict.fromkeys(CLASSES, 0.5), make_record())
    assert {row.name for row in listed if row.is_called} == {CLASSES[column] for column in np.flatnonzero(called)}
    for group in (listed[: called.sum()], listed[called.sum() :]):
        assert len({row.is_called for row in group}) == 1
        assert [row.probability for row in group] == sorted((row.probability for row in group), reverse=True)
    assert {row.name: row.probability for row in listed} == dict(zip(CLASSES, probabilities, strict=True))


def test_names_and_headers_of_files_cannot_write_the_page() -> None:
    evil = "<img src='http://example.org/a.png'>![a](http://example.org/b.png)"
    for drawn in (
        draw("failure", evil, evil),
        draw("flags", [evil]),
        draw("picture", "data:,", evil, evil, evil),
    ):
        assert evil not in drawn
        assert "&lt;img" in drawn


def test_a_picture_within_the_page_is_the_picture() -> None:
    for shape in ((5, 7), (5, 7, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        kind, _, content = data_url(pixels).partition(",")
        assert kind == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)


# How the command starts and ends.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Streamlit is told, in place of a server."""
    told: list[list[str]] = []
    monkeypatch.setattr(command.cli, "main", told.append)
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    return told


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["app", *words])
    command.main()


def test_only_this_machine_is_served_and_nothing_is_told_to_others(
    here: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]]
) -> None:
    start(monkeypatch)
    assert {"--server.address=localhost", "--browser.gatherUsageStats=false", "--server.headless=true"} < set(served[0])
    assert not any("server.port" in option for option in served[0])
    start(monkeypatch, "--port", "8765")
    assert "--server.port=8765" in served[1]


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch, served: list[list[str]]) -> None:
    with pytest.raises(InputError, match=rf"--port {port}: .*; name another, or none"):
        start(monkeypatch, f"--port={port}")
    assert served == []


def test_a_port_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch, served: list[list[str]]) -> None:
    with socket.create_server(("localhost", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: .*in use; name another, or none"):
            start(monkeypatch, "--port", str(port))
    assert served == []


def test_what_is_missing_ends_the_command_with_what_to_do(project: Path, tmp_path: Path) -> None:
    process = [sys.executable, "-m", "tools.app"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(process, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert error_of(done).startswith("error: there is no data/decisions.json, so nobody to ask: run `make repro`")


def lose_network(folder: Path) -> None:
    (folder / "data/models/test_resnet-2.safetensors").unlink()


def swap_networks(folder: Path) -> None:
    models = folder / "data/models"
    shutil.copyfile(models / "test_resnet-1.safetensors", models / "test_resnet-2.safetensors")


def lose_metrics(folder: Path) -> None:
    (folder / "metrics/intervals.json").unlink()


def empty_metrics(folder: Path) -> None:
    write_json({}, folder / "metrics/operating_points.json")


def change_metrics(folder: Path) -> None:
    path = folder / "metrics/operating_points.json"
    content = json.loads(path.read_text())
    content["classes"]["Mass"]["threshold"] += 1e-9
    write_json(content, path)


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lose_network, r"test_resnet-2\.safetensors"),
        (swap_networks, r"data/models holds other networks than data/decisions\.json was made for: run `dvc repro`"),
        (lose_metrics, r"there is no metrics/intervals\.json; run `dvc repro`"),
        (empty_metrics, r"metrics is not what evaluate writes: KeyError\('classes'\); run `dvc repro`"),
        (change_metrics, r"metrics is of another run than data/decisions\.json: run `dvc repro`, or `dvc checkout`"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]], breaking: Any, message: str
) -> None:
    breaking(copy)
    with pytest.raises(InputError, match=message):
        start(monkeypatch)
    assert served == []
