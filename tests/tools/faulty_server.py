"""A server of files that fails as real ones do: what each next reply for a file does wrong is written down before."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

STALL = 1.5  # seconds; the tests wait for less
WITHOUT_RANGES = {"no ranges", "starts over"}


class FaultyServer(ThreadingHTTPServer):
    """Serves `files`; `faults[name]` are what its next replies for a file do wrong, the last of them for ever if it
    ends in `always`; `asked` are the names and ranges that clients asked for."""

    daemon_threads = True
    # Connections that a killed client left are no concern of the tests.
    block_on_close = False

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.retry_after = "0"
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def ranges(self, name: str) -> list[str | None]:
        return [asked for each, asked in self.asked if each == name]

    def next_fault(self, name: str) -> str:
        faults = self.faults[name]
        if not faults:
            return ""
        return faults[0].removesuffix(" always") if faults[0].endswith("always") else faults.pop(0)

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no error here."""


class Handler(BaseHTTPRequestHandler):
    server: FaultyServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        asked = self.headers.get("Range")
        self.server.asked.append((name, asked))
        fault = self.server.next_fault(name)
        if fault == "drop":
            self.connection.close()
        elif fault in {"503", "404", "429"}:
            self.refuse(int(fault))
        elif fault == "moved":
            self.send_response(302)
            self.send_header("Location", self.server.url(name))
            self.end_headers()
        elif fault == "page":
            self.reply(200, b"<html>Too many requests</html>")
        else:
            self.serve(self.server.files[name], asked, fault)

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()

    def serve(self, content: bytes, asked: str | None, fault: str) -> None:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault not in WITHOUT_RANGES else 0  # type: ignore[index]
        body = content[start:]
        if fault == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        named = start + (1 if fault == "other range" else 0)
        header = f"bytes {named}-{len(content) - 1}/{len(content)}" if start else None
        self.reply(206 if start else 200, body, header, fault)

    def reply(self, status: int, body: bytes, content_range: str | None = None, fault: str = "") -> None:
        self.send_response(status)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if fault == "stall":
            self.wfile.flush()
            time.sleep(STALL)
        if fault == "slow":
            for byte in range(half, len(body), 4096):
                self.wfile.write(body[byte : byte + 4096])
                time.sleep(0.01)
        elif fault not in {"cut", "starts over"}:
            self.wfile.write(body[half:])


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FaultyServer]:
    """A running server of `files`."""
    server = FaultyServer(files)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
