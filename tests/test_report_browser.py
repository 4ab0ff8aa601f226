"""The report in a real browser, Debian's chromium; skipped by name where there is none."""

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cxr.core.labels import CLASSES
from cxr.reporting.report import Run, write_report
from cxr.reporting.svg import format_ci
from tests.fixtures.browser import CHROMIUM, OPTIONS, PHONE, WIDE
from tests.fixtures.reported import make_run

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: the report was not tried in one; `apt-get install chromium` (as .ci/run does) and test again",
)
# Nothing of its own that a browser would do besides showing the page.
QUIET = (
    *OPTIONS,
    "--headless",
    "--no-first-run",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--allow-file-access-from-files",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# What chromium's log calls the initiator of what it asks for by itself, as the time.
NO_PAGE = "not an origin"
SCROLLBAR = 20  # pixels
# A window is never as narrow as a phone; a frame may be.
FRAME = """<iframe src="{name}" width="{width}" height="900" style="border: 0"></iframe><script>onload = () => {{
const page = document.querySelector("iframe").contentDocument.documentElement;
document.body.dataset.widths = [page.scrollWidth, page.clientWidth].join();
}}</script>"""


class Visit(NamedTuple):
    """What came of opening a page."""

    page: str  # the document as the browser has it
    console: list[str]
    requests: set[str]  # to the network


def visit(path: Path) -> Visit:
    """Open the file at `path` and wait until all of it is loaded."""
    log = path.with_suffix(".netlog")
    profile = path.with_suffix(".profile")
    options = [f"--log-net-log={log}", f"--user-data-dir={profile}", f"--window-size={WIDE},1000", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    started = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    requests = {params["url"] for params in started if params.get("initiator", NO_PAGE) != NO_PAGE}
    return Visit(done.stdout, console, requests)


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture
def report(run: Run, tmp_path: Path) -> Path:
    write_report(run, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_the_report_opens_without_an_error_or_a_request_and_shows_the_metrics_numbers(run: Run, report: Path) -> None:
    page, console, requests = visit(report)
    assert console == []
    assert requests == set()
    for name in CLASSES:
        (row,) = re.findall(rf'<tr id="auroc-{name.replace(" ", "_")}">(.*?)</tr>', page, re.DOTALL)
        assert format_ci(run.metrics.intervals.auroc[name]) in re.findall(
            r'<span class="number">(.*?)</span>', row
        )


def test_an_error_and_a_request_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://example.org/a.png"><script>nothing.here()</script>', encoding="utf-8")
    _, console, requests = visit(path)
    assert any("nothing is not defined" in line for line in console)
    assert "http://example.org/a.png" in requests


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_the_page_itself_never_scrolls_sideways(report: Path, width: int) -> None:
    html = report.read_text(encoding="utf-8").replace("<details>", "<details open>")
    report.write_text(html, encoding="utf-8")
    frame = report.with_name("frame.html")
    frame.write_text(FRAME.format(width=width, name=report.name), encoding="utf-8")
    ((needed, there),) = re.findall(r'data-widths="(\d+),(\d+)"', visit(frame).page)
    assert width - SCROLLBAR <= int(there) <= width
    assert needed == there
