"""The page in Chromium, from a server as a user starts it; skipped without a browser.

The server runs without permission to write to files (`ulimit -f 0`).
"""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from cxr.core.labels import CLASSES
from tests.fixtures.browser import CHROMIUM, OPTIONS, PHONE, WIDE
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in
from tests.fixtures.trained import train_project
from tests.tools.test_predict import chest, dicom
from tools.app.samples import SampleImage, read_samples
from tools.predict import command

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: tools.app was not tested in one; `apt-get install chromium` (as .ci/run does) and test again",
)
# No host name resolves, except for this machine.
QUIET = (
    *OPTIONS,
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
)
VISITORS = 10
TOO_LARGE = 51 * 2**20  # bytes


class Server(NamedTuple):
    """A running server."""

    port: int
    project: Path
    home: Path
    temporary: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def files(self) -> list[set[str]]:
        """Return the files in all folders that it could write to."""
        return [files_in(folder) for folder in (self.project, self.home, self.temporary)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folders = [tmp_path_factory.mktemp(name) for name in ("project", "home", "temporary")]
    train_project(folders[0], tta={"hflip": True, "translate": 0, "scale": 0, "five_crop": 0})
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    served = Server(port, *folders)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "HOME": str(served.home),
        "TMPDIR": str(served.temporary),
    }
    call = f"ulimit -f 0; exec {sys.executable} -m tools.app --port {port}"
    process = subprocess.Popen(
        ["bash", "-c", call], cwd=served.project, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(served.url, process)
        yield served
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert "error" not in output.lower()
    assert served.url in output


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[0]
        try:
            with urlopen(f"{url}/_stcore/health", timeout=60):  # noqa: S310 (our own server)
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("no page within a minute")


@pytest.fixture(scope="module")
def samples(server: Server) -> list[SampleImage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(server.project)
        return read_samples()


@pytest.fixture(scope="module")
def predicted(
    server: Server, samples: list[SampleImage], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The results of tools.predict for each sample image, by name.

    Each image is predicted alone, as the page does: on some processors the last digits depend on the batch size.
    """
    path, results = tmp_path_factory.mktemp("predicted") / "a.json", {}
    for sample in samples:
        predict(server, f"images/{sample.name}", "--json", path)
        (results[sample.name],) = json.loads(path.read_text())["images"]
    return results


def predict(server: Server, *args: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(server.project)
        patch.setattr(sys, "argv", ["predict", *map(str, args)])
        command.main()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)  # for a busy machine
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


class Watched(NamedTuple):
    """A visitor's page with its requests and console messages."""

    page: Page
    requests: list[str]
    console: list[str]


def visit(context: BrowserContext, server: Server) -> Watched:
    """Open the page in a new session, without waiting until it is complete."""
    page = context.new_page()
    watched = Watched(page, [], [])
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("websocket", lambda opened: watched.requests.append(opened.url.replace("ws:", "http:", 1)))
    page.on("console", lambda message: watched.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.console.append(str(error)))
    page.goto(server.url, wait_until="commit")
    return watched


def leave(watched: Watched, server: Server) -> None:
    """Close the page; check that there were no errors, and no requests but to the server."""
    watched.page.close()
    assert [line for line in watched.console if line.startswith(("error", "warning", "Error"))] == []
    requested = [url for url in watched.requests if not url.startswith(("data:", "blob:"))]
    assert requested
    assert [url for url in requested if not url.startswith(f"{server.url}/")] == []


@pytest.fixture(scope="module")
def context(browser: Browser) -> BrowserContext:
    """One context for all visits, so that the browser loads Streamlit's files once."""
    return browser.new_context(viewport={"width": WIDE, "height": 900})


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    watched = visit(context, server)
    yield watched.page
    leave(watched, server)


def read(page: Page, name: str) -> dict[str, tuple[str, bool]]:
    """Return the displayed probability of each class of the image `name`, and whether it is predicted positive."""
    expect(page.locator("figcaption")).to_have_text(re.compile(rf"^\s*{re.escape(name)}( ·|\s*$)"))
    expect(page.locator(".stApp")).to_have_attribute("data-test-script-state", "notRunning")
    listed = page.locator(".cxr-class").evaluate_all(
        "rows => rows.map(row => [row.dataset.class, row.querySelector('.cxr-probability').textContent,"
        " row.classList.contains('cxr-positive')])"
    )
    return {row[0]: (row[1], row[2]) for row in listed}


def expected(image: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    positives = image["predicted_positive"]
    return {name: (f"{value:.3f}", name in positives) for name, value in image["probabilities"].items()}


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()


def displayed_pixels(page: Page, alternative: str) -> NDArray[np.uint8]:
    """Return the pixels of the image with this alternative text."""
    shown = page.get_by_role("img", name=alternative, exact=True)
    expect(shown).to_be_visible(timeout=60_000)
    source = shown.get_attribute("src")
    assert source
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def upload(page: Page, name: str, file: bytes) -> None:
    uploader(page).set_input_files({"name": name, "mimeType": "application/octet-stream", "buffer": file})


def uploader(page: Page) -> Locator:
    return page.locator("input[type=file]")


def overlay_of_predict(server: Server, folder: Path, name: str, of_class: str) -> NDArray[np.uint8]:
    predict(server, f"images/{name}", "--saliency-maps", folder, "--class", of_class)
    return np.asarray(Image.open(folder / f"{Path(name).stem}.{of_class.replace(' ', '_')}.png"))


def test_a_sample_has_the_probabilities_and_saliency_maps_of_tools_predict(
    page: Page, server: Server, samples: list[SampleImage], predicted: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert read(page, samples[0].name) == expected(predicted[samples[0].name])
    sample = samples[7]
    choose(page, "Or select a test image", f"{', '.join(sample.labels)} ({sample.name})")
    listed = read(page, sample.name)
    assert listed == expected(predicted[sample.name])
    for name in (next(iter(listed)), CLASSES[4], CLASSES[10]):
        if name != next(iter(listed)):
            choose(page, "Saliency map of", name)
        shown = displayed_pixels(page, f"{sample.name}: the radiograph with the saliency map of {name}")
        assert np.array_equal(shown, overlay_of_predict(server, tmp_path, sample.name, name))
    page.get_by_text("Show the saliency map").click()
    assert displayed_pixels(page, f"{sample.name}: the radiograph").ndim == 2


def test_the_page_explains_its_purpose_and_thresholds(page: Page, server: Server, samples: list[SampleImage]) -> None:
    read(page, samples[0].name)
    expect(page.get_by_text("Not for clinical use")).to_be_visible()
    expect(page.get_by_text("test_resnet-1, test_resnet-2")).to_be_visible()
    point = json.loads((server.project / "metrics/operating_points.json").read_text())["classes"]["Mass"]
    row = page.locator(".cxr-class[data-class=Mass]")
    row.locator("summary").click()
    sensitivity = round(100 * point["sensitivity"]["value"])
    expect(row.get_by_text(f"On test, sensitivity: {sensitivity} % (")).to_be_visible()
    expect(page.get_by_text("Deploy")).to_have_count(0)
    expect(page.locator("[data-testid=stMainMenu]")).to_have_count(0)


def large_image() -> NDArray[np.uint8]:
    """Return noise, which cannot be compressed: a server would write an upload of this size to disk by default."""
    return np.random.default_rng(0).integers(0, 256, (1300, 1200), np.uint8)


def test_uploaded_images_are_predicted_and_nothing_is_written(
    page: Page, server: Server, samples: list[SampleImage], tmp_path: Path
) -> None:
    before = server.files()
    Image.fromarray(large_image()).save(tmp_path / "large.png")
    Image.fromarray(chest(200)).save(tmp_path / "chest.jpg")
    dicom(tmp_path / "chest", chest(150), ViewPosition="LL")
    read(page, samples[0].name)
    for name in ("large.png", "chest.jpg", "chest"):
        file = tmp_path / name
        upload(page, name, file.read_bytes())
        predict(server, file, "--json", tmp_path / "a.json")
        (image,) = json.loads((tmp_path / "a.json").read_text())["images"]
        assert read(page, name) == expected(image)
        expect(page.locator(".cxr-alert")).to_have_count(len(image["warnings"]))
        for warning in image["warnings"]:
            expect(page.get_by_text(f"frontal chest radiograph: {warning}.")).to_be_visible()
    assert (tmp_path / "large.png").stat().st_size > 2**20
    assert "ViewPosition is LL" in image["warnings"]
    assert server.files() == before


def test_an_unreadable_file_gets_a_message_and_the_page_goes_on(
    page: Page, samples: list[SampleImage], predicted: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(dicom(tmp_path / "report.dcm", chest(32)))
    del dataset.PixelData
    dataset.save_as(tmp_path / "report.dcm")
    image = samples[1].file
    read(page, samples[0].name)
    for name, file, reason in (
        ("a letter *of* <b>mine</b>.txt", b"Dear colleague,", "not a PNG or JPEG image"),
        ("half.png", image[: len(image) // 2], "truncated"),
        ("empty.png", b"", "an empty file"),
        ("report.dcm", (tmp_path / "report.dcm").read_bytes(), "a DICOM file without an image"),
    ):
        upload(page, name, file)
        message = page.get_by_role("alert").filter(has_text=f"{name} cannot be read: ")
        expect(message).to_contain_text(reason)
        expect(page.locator(".cxr-class")).to_have_count(0)
    choose(page, "Or select a test image", f"{', '.join(samples[2].labels)} ({samples[2].name})")
    assert read(page, samples[2].name) == expected(predicted[samples[2].name])
    expect(page.get_by_role("alert").filter(has_text="cannot be read")).to_have_count(0)
    with (tmp_path / "large.png").open("wb") as too_large:
        too_large.truncate(TOO_LARGE)
    uploader(page).set_input_files(tmp_path / "large.png")
    expect(page.get_by_text("File must be 50.0MB or smaller.")).to_be_visible(timeout=60_000)


def test_the_page_never_scrolls_sideways(page: Page, samples: list[SampleImage]) -> None:
    read(page, samples[0].name)
    long = f"{'a_long_name' * 20}.png"
    upload(page, long, samples[0].file)
    read(page, long)
    page.locator("details").evaluate_all("every => every.forEach(one => one.open = true)")
    for width in (PHONE, WIDE):
        page.set_viewport_size({"width": width, "height": 900})
        for part in ("html", "[data-testid=stMain]"):
            needed, there = page.locator(part).evaluate("part => [part.scrollWidth, part.clientWidth]")
            assert needed == there <= width


def test_each_of_ten_simultaneous_visitors_gets_the_right_result(
    context: BrowserContext, server: Server, samples: list[SampleImage], predicted: dict[str, dict[str, Any]]
) -> None:
    visitors = [visit(context, server) for _ in range(VISITORS)]
    for visitor in visitors:
        expect(uploader(visitor.page)).to_be_attached(timeout=60_000)
    for visitor, sample in zip(visitors, samples, strict=False):
        upload(visitor.page, f"of a visitor {sample.name}", sample.file)
    for visitor, sample in zip(visitors, samples, strict=False):
        assert read(visitor.page, f"of a visitor {sample.name}") == expected(predicted[sample.name])
    for visitor, sample in zip(visitors, samples, strict=False):
        others = [other.name for other in samples[:VISITORS] if other != sample]
        assert not any(f"of a visitor {name}" in visitor.page.content() for name in others)
        leave(visitor, server)


@pytest.mark.skipif(sys.platform != "linux", reason="NO SECOND ADDRESS: only Linux has 127.0.0.2 by default")
def test_the_page_is_reachable_from_localhost_only(server: Server) -> None:
    with socket.create_connection(("localhost", server.port)):
        pass
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", server.port)):
        pass
