"""`tools.audit` with a local server in place of the database."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from cxr.core.errors import InputError
from tests.fixtures.project import ROOT
from tools import audit


class Database(BaseHTTPRequestHandler):
    """Answers like OSV: pillow 13.0.0 has two advisories."""

    answer: bytes | None = None

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        vulnerable = {"package": {"name": "pillow", "ecosystem": "PyPI"}, "version": "13.0.0"}
        results = [{"vulns": [{"id": "A-1"}, {"id": "B-2"}]} if one == vulnerable else {} for one in queries]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer or json.dumps({"results": results}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it stops
        thread.start()
        monkeypatch.setattr(audit, "DATABASE", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["audit"])


def test_the_packages_with_advisories_are_listed_with_exit_code_1(
    database: HTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        audit.main()
    assert ended.value.code == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == "pillow 13.0.0: https://osv.dev/vulnerability/A-1 https://osv.dev/vulnerability/B-2"
    assert last == f"1 of {len(audit.pins(audit.CONSTRAINTS))} packages have known advisories"
    monkeypatch.setattr(audit, "pins", lambda _: {"pillow": "13.0.1", "torch": "13.0.0"})
    audit.main()
    assert capsys.readouterr().out == "0 of 2 packages have known advisories\n"


def test_without_a_network_a_warning_states_that_it_is_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "DATABASE", "http://127.0.0.1:9")  # nothing listens there
    audit.main()
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: SKIPPED: the advisories are unknown, since http://127.0.0.1:9 cannot be")
    assert printed.out == ""


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"results": [{}]}', b'{"results": 1}', b"<html>"])
def test_an_answer_of_another_format_is_one_error(
    database: HTTPServer, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(Database, "answer", answer)
    with pytest.raises(InputError, match="returned an answer of an unknown format"):
        audit.main()
