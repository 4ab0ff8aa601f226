"""The report in Chromium; skipped with a reason if it is not installed."""

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cxr.core.labels import CLASSES
from cxr.reporting.report import write_report
from cxr.reporting.run import Run
from cxr.reporting.text import format_ci
from tests.fixtures.browser import CHROMIUM, OPTIONS, PHONE, WIDE
from tests.fixtures.reported import make_run

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: the report is not tested in a browser; run `apt-get install chromium`, as .ci/run does",
)
# Disable everything that a browser does besides showing the page.
QUIET = (
    *OPTIONS,
    "--headless",
    "--no-first-run",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--allow-file-access-from-files",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# The initiator of Chromium's own requests in its log.
NO_ORIGIN = "not an origin"
SCROLLBAR = 20  # pixels
# Windows have a minimum width that is wider than a phone; frames have none.
FRAME = """<iframe src="{name}" width="{width}" height="900" style="border: 0"></iframe><script>onload = () => {{
const page = document.querySelector("iframe").contentDocument.documentElement;
document.body.dataset.widths = [page.scrollWidth, page.clientWidth].join();
}}</script>"""


class Visit(NamedTuple):
    """The result of opening a page."""

    page: str  # the DOM as HTML
    console: list[str]
    requests: set[str]  # to the network


def visit(path: Path) -> Visit:
    """Open the file at `path` and wait until it is loaded."""
    log = path.with_suffix(".netlog")
    profile = path.with_suffix(".profile")
    options = [f"--log-net-log={log}", f"--user-data-dir={profile}", f"--window-size={WIDE},1000", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    started = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    requests = {params["url"] for params in started if params.get("initiator", NO_ORIGIN) != NO_ORIGIN}
    return Visit(done.stdout, console, requests)


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture
def report(run: Run, tmp_path: Path) -> Path:
    write_report(run, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_the_report_opens_without_errors_or_requests_and_shows_the_metrics(run: Run, report: Path) -> None:
    page, console, requests = visit(report)
    assert console == []
    assert requests == set()
    for name in CLASSES:
        (row,) = re.findall(rf'<tr id="auroc-{name.replace(" ", "_")}">(.*?)</tr>', page, re.DOTALL)
        assert format_ci(run.metrics.intervals.auroc[name]) in re.findall(r'<span class="number">(.*?)</span>', row)


def test_errors_and_requests_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://example.org/a.png"><script>nothing.here()</script>', encoding="utf-8")
    _, console, requests = visit(path)
    assert any("nothing is not defined" in line for line in console)
    assert "http://example.org/a.png" in requests


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_the_page_does_not_scroll_horizontally(report: Path, width: int) -> None:
    html = report.read_text(encoding="utf-8").replace("<details>", "<details open>")
    report.write_text(html, encoding="utf-8")
    frame = report.with_name("frame.html")
    frame.write_text(FRAME.format(width=width, name=report.name), encoding="utf-8")
    ((needed, there),) = re.findall(r'data-widths="(\d+),(\d+)"', visit(frame).page)
    assert width - SCROLLBAR <= int(there) <= width
    assert needed == there
