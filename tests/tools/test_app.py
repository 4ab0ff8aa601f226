"""The parts of the page and its command without a browser, which `test_app_browser.py` adds."""

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
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.formparsers import MultiPartParser

from cxr.core.errors import InputError
from cxr.core.files import write_json
from cxr.core.labels import CLASSES
from cxr.evaluation.schema import Interval, Metrics
from cxr.evaluation.thresholds import Rule
from tests.fixtures.planted import write_planted_params
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of
from tests.fixtures.trained import names_of, train_project
from tools.app import command
from tools.app.fragments import class_rows, data_url, render_macro
from tools.app.samples import read_samples, select_samples
from tools.app.service import InferenceService, PredictedImage, load_state
from tools.app.text import describe_ensemble, explain_threshold, percent_ci
from tools.predict.predicting import Prediction, predict_files
from tools.predict.reading import Failure

UNDEFINED = Interval(value=None, low=None, high=None)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    train_project(folder)
    return folder


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The trained project as the working folder."""
    monkeypatch.chdir(project)
    load_state.cache_clear()
    yield project
    load_state.cache_clear()


@pytest.fixture
def copy(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder, to be modified."""
    folder = shutil.copytree(here, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def metrics(project: Path) -> Metrics:
    return Metrics.read(project / "metrics")


def altered(
    metrics: Metrics, *, rule: Rule = "f1", threshold: float = 0.2, synthetic: bool = True, name: str = "Mass"
) -> Metrics:
    """`metrics` with the same interval everywhere in the class `name`, but for an undefined PPV."""
    interval = Interval(value=0.8, low=0.7, high=0.95)
    rates = {"threshold": threshold, "sensitivity": interval, "specificity": interval, "ppv": UNDEFINED}
    point = metrics.operating_points.classes[name].model_copy(update=rates)
    counts = metrics.classes.classes[name].model_copy(update={"images": 1180, "positives": 80})
    auroc = metrics.intervals.auroc | {name: interval, "mean_15": interval}
    return metrics.model_copy(
        update={
            "operating_points": metrics.operating_points.model_copy(
                update={"rule": rule, "classes": metrics.operating_points.classes | {name: point}}
            ),
            "classes": metrics.classes.model_copy(
                update={"synthetic": synthetic, "classes": metrics.classes.classes | {name: counts}}
            ),
            "intervals": metrics.intervals.model_copy(update={"auroc": auroc, "patients": 98}),
            "test": metrics.test.model_copy(update={"test_images": 1180}),
        }
    )


# Predictions.


def test_predictions_are_those_of_tools_predict_bit_for_bit(here: Path) -> None:
    state = load_state()
    assert state is load_state()
    files = [Path("images") / name for name in names_of(here)[:6]]
    expected = [next(predict_files([file], state.service.ensemble, 32)) for file in files]
    with ThreadPoolExecutor(len(files)) as visitors:
        found = list(visitors.map(lambda file: state.service.predict(file.read_bytes(), file.name), files))
    for result, prediction in zip(found, expected, strict=True):
        assert isinstance(result, PredictedImage)
        assert isinstance(prediction, Prediction)
        assert np.array_equal(result.prediction.probabilities, prediction.probabilities)
        assert np.array_equal(result.prediction.is_predicted, prediction.is_predicted)
        assert result.prediction.warnings == prediction.warnings
    decisions = json.loads(Path("data/decisions.json").read_text())
    assert list(state.thresholds.values()) == decisions["calibrated_thresholds"]


def test_an_untrained_class_is_not_listed(metrics: Metrics) -> None:
    probabilities = np.where(np.arange(15) == 3, np.nan, 0.25)
    prediction = Prediction(Path("a"), probabilities, probabilities > 0.2, (), ())
    rows = class_rows(prediction, {name: 0.2 for name in CLASSES if name != CLASSES[3]}, metrics)
    assert {row.name for row in rows} == set(CLASSES) - {CLASSES[3]}


class SlowEnsemble:
    """An ensemble whose probabilities are the gray level of the image; it records how many requests run at once."""

    image_size, decisions = 8, None

    def __init__(self) -> None:
        self.running = self.most = 0
        self.threads: set[int] = set()

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.threads.add(threading.get_ident())
        time.sleep(0.01)
        self.running -= 1
        return np.full((len(images), len(CLASSES)), images[0, 0, 0] / 255)

    def calibrate(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities

    def is_predicted(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        return probabilities > 0.5


def service_of(ensemble: Any) -> InferenceService:
    return InferenceService(ensemble)


def test_each_of_many_visitors_gets_the_right_result_from_one_thread() -> None:
    slow, levels = SlowEnsemble(), np.arange(0, 250, 10, dtype=np.uint8)
    service = service_of(slow)
    with ThreadPoolExecutor(len(levels)) as visitors:
        found = list(
            visitors.map(lambda level: service.predict(png(np.full((9, 9), level, np.uint8)), "a.png"), levels)
        )
    predictions = [result.prediction for result in found if isinstance(result, PredictedImage)]
    assert [prediction.probabilities[0] * 255 for prediction in predictions] == pytest.approx(levels)
    assert (slow.most, len(slow.threads)) == (1, 1)


def test_lack_of_memory_is_a_failure_and_not_an_exception() -> None:
    class FullEnsemble(SlowEnsemble):
        def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
            raise InputError(f"memory is short for {len(images)}")

    failure = service_of(FullEnsemble()).predict(png(np.zeros((9, 9), np.uint8)), "a.png")
    assert failure == Failure(Path("a.png"), "memory is short for 1")


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header for an image of this size, without pixels."""
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
        (b"Dear colleague,", "a.txt", "not a PNG or JPEG image"),
        (b"GIF89a" + bytes(99), "a.png", "not a PNG or JPEG image"),
        (png(np.zeros((64, 64), np.uint8))[:70], "a.png", "truncated"),
        (b"\xff\xd8\xff" + bytes(99), "a.jpg", "damaged"),
        (b"Dear colleague,", "a.DCM", "not a DICOM file"),
        (bytes(128) + b"DICM" + bytes(20), "a", "DICOM file"),
        (bomb(9000, 8000), "a.png", "9,000 x 8,000 pixels are too many for a radiograph"),
        (bomb(30_000, 30_000), "a.png", "30,000 x 30,000 pixels are too many for a radiograph"),
        (bomb(8000, 8000), "a.png", "truncated"),
    ],
)
def test_a_file_that_is_no_radiograph_fails_with_a_reason(file: bytes, name: str, reason: str) -> None:
    failure = service_of(SlowEnsemble()).predict(file, name)
    assert isinstance(failure, Failure)
    assert reason in failure.reason


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS", "ICO", "WEBP"])
def test_other_formats_that_pillow_knows_are_refused(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("L", (64, 64)).save(stream, kind)
    failure = service_of(SlowEnsemble()).predict(stream.getvalue(), "a.png")
    assert failure == Failure(Path("a.png"), "not a PNG or JPEG image")


# Sample images.


def test_samples_are_one_test_image_of_each_class_with_few_labels(here: Path) -> None:
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


def test_a_class_without_test_images_has_no_sample() -> None:
    table = pd.DataFrame(0, index=range(2), columns=list(CLASSES)).assign(image=["b.png", "a.png"])
    assert select_samples(table.assign(Edema=1)) == {"a.png": ("Edema",)}


def test_missing_images_cause_a_warning_and_no_samples(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = read_samples()[3].name
    write_planted_params(copy, raw_dir="elsewhere")
    assert read_samples() == []
    assert "warning: the page has no test images: raw_dir: folder elsewhere" in capsys.readouterr().err
    (copy / "elsewhere/images").mkdir(parents=True)
    shutil.copyfile(copy / "images" / name, copy / "elsewhere/images" / name)
    assert [sample.name for sample in read_samples()] == [name]
    (copy / "data/split.csv").unlink()
    assert read_samples() == []


# Texts.


def test_a_threshold_is_explained(metrics: Metrics) -> None:
    assert explain_threshold("Mass", 0.3244, altered(metrics)) == [
        "Mass is predicted positive at a probability of 0.324 or higher: the threshold with the highest F1 on "
        "validation.",
        "On test, sensitivity: 80 % (70 to 95 %) of 80 images labelled Mass; specificity: 80 % (70 to 95 %) of 1,100 "
        "others; positive predictive value: undefined.",
        "AUROC 0.800 (0.700 to 0.950). Values in parentheses are 95 % confidence intervals.",
    ]
    rules: tuple[tuple[Rule, str], ...] = (
        ("youden", "the threshold with the highest sum of sensitivity and specificity"),
        ("sensitivity", "the highest threshold with the required sensitivity"),
    )
    for rule, text in rules:
        assert text in explain_threshold("Mass", 0.3, altered(metrics, rule=rule))[0]
    assert (
        "the default, because validation has no" in explain_threshold("Mass", 0.3, altered(metrics, threshold=0.5))[0]
    )


def test_a_percentage_without_an_interval_is_shown() -> None:
    assert percent_ci(Interval(value=0.125, low=None, high=None)) == "12 % (no interval)"
    assert percent_ci(UNDEFINED) == "undefined"


def test_networks_and_evaluation_are_described(here: Path, metrics: Metrics) -> None:
    ensemble = load_state().service.ensemble
    facts = describe_ensemble(ensemble, altered(metrics))
    assert facts["Networks"] == "test_resnet-1, test_resnet-2 (mean of their probabilities)"
    assert facts["Input"] == "32 × 32 pixels"
    assert facts["Mean AUROC"].startswith("0.800 (0.700 to 0.950) over 15 classes")
    assert facts["Evaluated on"].startswith("1,180 synthetic images of 98 simulated patients, none")
    real = describe_ensemble(ensemble, altered(metrics, synthetic=False))["Evaluated on"]
    assert real.startswith("1,180 test images of 98 patients, none")


def test_predicted_positives_come_first_and_the_most_probable_among_them(metrics: Metrics) -> None:
    random = np.random.default_rng(0)
    probabilities, is_predicted = random.random(15), random.random(15) < 0.4
    prediction = Prediction(Path("a"), probabilities, is_predicted, (), ())
    rows = class_rows(prediction, dict.fromkeys(CLASSES, 0.5), metrics)
    assert {row.name for row in rows if row.is_predicted} == {
        CLASSES[column] for column in np.flatnonzero(is_predicted)
    }
    for group in (rows[: is_predicted.sum()], rows[is_predicted.sum() :]):
        assert len({row.is_predicted for row in group}) == 1
        assert [row.probability for row in group] == sorted((row.probability for row in group), reverse=True)
    assert {row.name: row.probability for row in rows} == dict(zip(CLASSES, probabilities, strict=True))


def test_names_and_headers_of_files_are_escaped() -> None:
    evil = "<img src='http://example.org/a.png'>![a](http://example.org/b.png)"
    for html in (
        render_macro("failure", evil, evil),
        render_macro("warnings", [evil]),
        render_macro("image", "data:,", evil, evil, evil),
    ):
        assert evil not in html
        assert "&lt;img" in html


def test_a_data_url_holds_the_pixels_of_the_image() -> None:
    for shape in ((5, 7), (5, 7, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        kind, _, content = data_url(pixels).partition(",")
        assert kind == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)


# The command.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments that Streamlit is called with, instead of starting a server."""
    calls: list[list[str]] = []
    monkeypatch.setattr(command.cli, "main", calls.append)
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    return calls


def start(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["app", *args])
    command.main()


def test_the_server_listens_on_localhost_and_sends_no_usage_statistics(
    here: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]]
) -> None:
    start(monkeypatch)
    assert {"--server.address=localhost", "--browser.gatherUsageStats=false", "--server.headless=true"} < set(served[0])
    assert not any("server.port" in option for option in served[0])
    start(monkeypatch, "--port", "8765")
    assert "--server.port=8765" in served[1]


HOSTILE_VARIABLES = {
    "SERVER_ADDRESS": "127.0.0.2",
    "SERVER_ALLOWED_HOSTS": "*",
    "SERVER_BASE_URL_PATH": "elsewhere",
    "SERVER_COOKIE_SECRET": "known",
    "SERVER_CORS_ALLOWED_ORIGINS": "http://evil.example",
    "SERVER_ENABLE_CORS": "false",
    "SERVER_ENABLE_STATIC_SERVING": "true",
    "SERVER_ENABLE_XSRF_PROTECTION": "false",
    "SERVER_MAX_UPLOAD_SIZE": "5000",
    "SERVER_SSL_CERT_FILE": "/nonesuch",
    "BROWSER_SERVER_ADDRESS": "evil.example",
    "GLOBAL_DEVELOPMENT_MODE": "true",
}
HOSTILE_FILE = """
[server]
corsAllowedOrigins = ["http://evil.example"]
enableCORS = false
enableXsrfProtection = false
sslCertFile = "/nonesuch"
baseUrlPath = "elsewhere"
[browser]
serverAddress = "evil.example"
[[theme.fontFaces]]
family = "x"
url = "http://evil.example/font.woff2"
"""


@pytest.fixture(scope="module")
def port(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that was started with hostile settings."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("hostile") / "project")
    for place in (folder, folder / "home"):
        (place / ".streamlit").mkdir(parents=True)
        (place / ".streamlit/config.toml").write_text(HOSTILE_FILE, encoding="utf-8")
    with socket.create_server(("localhost", 0)) as free:
        number: int = free.getsockname()[1]
    hostile = {f"STREAMLIT_{name}": value for name, value in HOSTILE_VARIABLES.items()}
    places = {"HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.app", "--port", str(number)],
        cwd=folder, env=os.environ | hostile | places, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_until_served(number, process)
        yield number
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert f"http://localhost:{number}" in output


def wait_until_served(number: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        assert process.poll() is None, process.communicate()[0]
        with suppress(OSError):
            assert status_of(number, "GET", "/_stcore/health") == HTTPStatus.OK
            return
        time.sleep(0.1)
    pytest.fail("no page within two minutes")


def status_of(number: int, method: str, path: str, **headers: str) -> int:
    """Return the status of the server's answer; underscores in the names of headers stand for hyphens."""
    with closing(HTTPConnection("localhost", number, timeout=60)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status


def open_session(number: int, origin: str, host: str = "localhost") -> int:
    """Return the status of the answer to a page of `origin` that opens a session."""
    return status_of(
        number,
        "GET",
        "/_stcore/stream",
        Host=host,
        Origin=origin,
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
    )


def test_hostile_settings_do_not_let_other_pages_in(port: int) -> None:
    assert open_session(port, f"http://localhost:{port}") == HTTPStatus.SWITCHING_PROTOCOLS
    for origin in ("http://evil.example", f"http://evil.example:{port}", "http://localhost.evil.example", "null"):
        assert open_session(port, origin) == HTTPStatus.FORBIDDEN
    # DNS rebinding: the foreign name resolves to this machine.
    assert open_session(port, "http://evil.example", "evil.example") == HTTPStatus.FORBIDDEN
    assert status_of(port, "PUT", "/_stcore/upload_file/a/b") == HTTPStatus.FORBIDDEN


def test_hostile_settings_change_neither_address_nor_theme(port: int) -> None:
    with closing(HTTPConnection("localhost", port, timeout=60)) as connection:
        connection.request("GET", "/_stcore/host-config", headers={"Origin": "http://evil.example"})
        answer = connection.getresponse()
        assert answer.status == HTTPStatus.OK
        assert answer.headers["Access-Control-Allow-Origin"] in (None, f"http://localhost:{port}")
        assert b"evil" not in answer.read()


@pytest.mark.skipif(sys.platform != "linux", reason="NO SECOND ADDRESS: only Linux has 127.0.0.2 by default")
def test_hostile_settings_do_not_open_the_page_to_the_network(port: int) -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port)):
        pass


def test_all_settings_are_those_of_the_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]], tmp_path: Path
) -> None:
    for name, value in HOSTILE_VARIABLES.items():
        monkeypatch.setenv(f"STREAMLIT_{name}", value)
    monkeypatch.setattr(command.config, "get_config_files", command.config.get_config_files)
    monkeypatch.setattr(command.net_util, "get_external_ip", command.net_util.get_external_ip)
    start(monkeypatch)
    assert not any(name.startswith("STREAMLIT_") for name in os.environ)
    assert command.config.get_config_files("config.toml") == []
    assert command.net_util.get_external_ip() is None
    assert {"--server.enableCORS=true", "--server.enableXsrfProtection=true"} < set(served[0])


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_an_impossible_port_is_rejected(port: str, monkeypatch: pytest.MonkeyPatch, served: list[list[str]]) -> None:
    with pytest.raises(InputError, match=rf"--port {port}: .*; give another port, or none"):
        start(monkeypatch, f"--port={port}")
    assert served == []


def test_a_port_in_use_is_rejected(monkeypatch: pytest.MonkeyPatch, served: list[list[str]]) -> None:
    with socket.create_server(("localhost", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: .*in use; give another port, or none"):
            start(monkeypatch, "--port", str(port))
    assert served == []


def test_missing_networks_end_the_command_with_what_to_do(project: Path, tmp_path: Path) -> None:
    process = [sys.executable, "-m", "tools.app"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(process, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert error_of(done).startswith("error: there is no data/decisions.json; run `make repro`")


def delete_network(folder: Path) -> None:
    (folder / "data/models/test_resnet-2.safetensors").unlink()


def swap_networks(folder: Path) -> None:
    models = folder / "data/models"
    shutil.copyfile(models / "test_resnet-1.safetensors", models / "test_resnet-2.safetensors")


def delete_metrics(folder: Path) -> None:
    (folder / "metrics/intervals.json").unlink()


def empty_metrics(folder: Path) -> None:
    write_json({}, folder / "metrics/operating_points.json")


def change_metrics(folder: Path) -> None:
    path = folder / "metrics/operating_points.json"
    content = json.loads(path.read_text())
    content["classes"]["Mass"]["threshold"] += 1e-9
    write_json(content, path)


@pytest.mark.parametrize(
    ("modify", "message"),
    [
        (delete_network, r"test_resnet-2\.safetensors"),
        (
            swap_networks,
            r"data/decisions\.json was written for other networks than those in data/models; run `dvc repro`",
        ),
        (delete_metrics, r"there is no metrics/intervals\.json; run `dvc repro`"),
        (empty_metrics, r"metrics/operating_points.json was written by another version .*run `dvc repro`"),
        (change_metrics, r"metrics and data/decisions\.json are from different runs; run `dvc repro` or `dvc check"),
    ],
)
def test_files_that_do_not_belong_together_are_rejected(
    copy: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]], modify: Any, message: str
) -> None:
    modify(copy)
    with pytest.raises(InputError, match=message):
        start(monkeypatch)
    assert served == []
