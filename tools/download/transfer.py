"""Download of one file over HTTP: transfers are resumed, and the checksum is verified before a file gets its name.

Received bytes are stored in `NAME.part`. Size and MD5 checksum are known in advance, so parts of different versions of
a file are detected without an ETag.
"""

import re
import time
from collections.abc import Iterator
from hashlib import file_digest
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cxr.core.errors import InputError, first_lines
from tools.download.progress import Progress
from tools.download.sources import Source

MAX_TRIES = 7  # consecutive tries without progress, over about a minute
MIN_PAUSE = 1.0  # seconds before the first retry; doubled for each further one
MAX_RETRY_AFTER = 60.0  # seconds; limit of the header Retry-After
TIMEOUT = 30.0  # seconds without a received byte, and period of MIN_SPEED
MIN_SPEED = 1000  # bytes per second; a slower transfer is a failure
CHUNK = 1 << 20  # bytes
_TEMPORARY_ERRORS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class TransferError(Exception):
    """A failed transfer. The message continues the words "the server"."""

    def __init__(self, message: str, *, is_final: bool = False, retry_after: float = 0) -> None:
        super().__init__(message)
        self.is_final = is_final  # retrying is useless
        self.retry_after = retry_after  # seconds, as requested by the server


def fetch(source: Source, folder: Path, progress: Progress) -> Path:
    """Download `source` into `folder`, resuming an interrupted transfer; return the path of the file.

    Raises:
        InputError: if the server keeps failing or sends a different file; no file of this name is written.
        StoppedError: after `progress.stop()`.
    """
    part = part_path(source, folder)
    for _ in range(2):  # a wrong checksum is retried once, since it may be a transmission error
        _fill(source, part, progress)
        md5 = file_md5(part)
        if md5 == source.md5:
            return part.replace(folder / source.name)
        part.unlink()
        progress.advance(-source.size)
        progress.print(f"{source.name}: MD5 {md5} differs from {source.md5}; discarded")
    raise _give_up(source, folder, f"sends a file with MD5 {md5} instead of {source.md5}")


def part_path(source: Source, folder: Path) -> Path:
    """Return the path of the received part of `source`."""
    return folder / f"{source.name}.part"


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def file_md5(path: Path) -> str:
    """Return the MD5 checksum of a file, in hexadecimal. It detects errors of transmission, not attacks."""
    with path.open("rb") as file:
        return file_digest(file, "md5").hexdigest()


def _fill(source: Source, part: Path, progress: Progress) -> None:
    """Receive bytes until `part` has the size of `source`."""
    failures = 0
    while (before := file_size(part)) != source.size:
        progress.check()
        try:
            _receive(source, part, progress)
        except TransferError as failure:
            failures = 1 if file_size(part) - before > MIN_SPEED * TIMEOUT else failures + 1
            if failure.is_final or failures == MAX_TRIES:
                raise _give_up(source, part.parent, str(failure)) from None
            seconds = max(failure.retry_after, MIN_PAUSE * 2 ** (failures - 1))
            progress.print(f"{source.name}: the server {failure}; retrying in {seconds:.0f} s")
            progress.pause(seconds)


def _receive(source: Source, part: Path, progress: Progress) -> None:
    received = file_size(part) if file_size(part) < source.size else 0
    with _request(source, received) as reply:
        start = _first_byte(reply, received, source.size)
        progress.advance(start - file_size(part))
        with part.open("ab" if start else "wb") as file:
            for chunk in _chunks(reply, source.size - start):
                file.write(chunk)
                progress.advance(len(chunk))
    if file_size(part) < source.size:
        raise TransferError(f"closed the connection after {file_size(part):,} of {source.size:,} bytes")


def _request(source: Source, start: int) -> HTTPResponse:
    request = Request(source.url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 (see sources.py)
    try:
        reply: HTTPResponse = build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            seconds = error.headers.get("Retry-After", "")
            raise TransferError(
                f"answers {error.code} {first_lines(ValueError(error.reason))}",
                is_final=error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _TEMPORARY_ERRORS,
                retry_after=min(float(seconds), MAX_RETRY_AFTER) if seconds.isdecimal() else 0,
            ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise TransferError(f"cannot be reached ({reason})") from None
    return reply


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but not from HTTPS to another protocol; urllib limits their number."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Return the next request; raise TransferError if its protocol is less safe."""
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise TransferError(f"redirects to {newurl}", is_final=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _first_byte(reply: HTTPResponse, requested: int, size: int) -> int:
    """Return the index of the first byte that the server sends: `requested`, or 0 if it ignores the range."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        content_range = reply.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if not found or int(found[1]) != requested or found[2] not in ("*", str(size)):
            raise TransferError(
                f"sends the range {content_range!r} instead of {requested:,} to {size - 1:,} of {size:,}"
            )
        return requested
    length = reply.headers.get("Content-Length", str(size))
    if length != str(size):
        raise TransferError(f"sends a file of {length} bytes instead of {size}")
    return 0


def _chunks(reply: HTTPResponse, count: int) -> Iterator[bytes]:
    """Yield up to `count` bytes; fewer if the server closes the connection."""
    try:
        start, received = time.monotonic(), 0
        while count and (chunk := reply.read1(min(CHUNK, count))):
            count -= len(chunk)
            yield chunk
            received += len(chunk)
            if (seconds := time.monotonic() - start) > TIMEOUT:
                if received < MIN_SPEED * seconds:
                    raise TransferError(f"sends only {received / seconds:.0f} bytes per second")
                start, received = time.monotonic(), 0
    except (OSError, HTTPException) as error:
        raise TransferError(f"closed the connection ({error or type(error).__name__})") from None


def _give_up(source: Source, folder: Path, problem: str) -> InputError:
    return InputError(
        f"{folder / source.name}: {source.url} {problem}. Run the command again to resume, or download {source.name} "
        f"with a browser from {source.page}, move it to {folder}, and run the command again"
    )
