"""Fetching one file over HTTP: it goes on after a break, and nothing that is not the file gets its name.

What has arrived lies in `NAME.part`. A size and an MD5 sum that are known beforehand do what an ETag would do: parts of
two versions of a file are never taken for it.
"""

import re
from collections.abc import Iterator
from hashlib import file_digest
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from cxr.core.errors import InputError
from tools.download.progress import Progress
from tools.download.sources import BY_HAND, Source

TRIES = 7  # in a row that bring nothing, after which a server is given up: a minute
SHORTEST_PAUSE = 1.0  # seconds; doubled after each try
LONGEST_PAUSE = 60.0  # that a server can ask for
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
_MAY_PASS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class TransferError(Exception):
    """A transfer that did not end well."""

    def __init__(self, what: str, *, final: bool = False, wait: float = 0) -> None:
        super().__init__(what)
        self.final = final  # trying again is of no use
        self.wait = wait  # seconds that the server asks for


def fetch(source: Source, folder: Path, progress: Progress) -> Path:
    """Fetch `source` into `folder`, where an earlier transfer broke off; return its path.

    Raises:
        InputError: where the server fails for good, or has another file; no file of this name is there then.
        StoppedError: where the user does not want it any more.
    """
    part = part_of(source, folder)
    for _ in range(2):  # wrong bytes once may be a bad line
        _fill(source, part, progress)
        found = md5_of(part)
        if found == source.md5:
            return part.replace(folder / source.name)
        part.unlink()
        progress.advance(-source.size)
        progress.say(f"{source.name}: MD5 {found} is not {source.md5}; thrown away")
    raise _given_up(source, folder, f"sends other bytes than NIH published (MD5 {found}, not {source.md5})")


def part_of(source: Source, folder: Path) -> Path:
    """Where the bytes of `source` lie that have arrived."""
    return folder / f"{source.name}.part"


def size_of(path: Path) -> int:
    """Bytes of the file at `path`, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def md5_of(path: Path) -> str:
    """Hexadecimal MD5 of the file at `path`: what NIH publishes, and no defence against malice."""
    with path.open("rb") as file:
        return file_digest(file, "md5").hexdigest()


def _fill(source: Source, part: Path, progress: Progress) -> None:
    """Receive until `part` has the size of `source`."""
    failures = 0
    while (before := size_of(part)) != source.size:
        progress.check()
        try:
            _receive(source, part, progress)
        except TransferError as failure:
            failures = 1 if size_of(part) > before else failures + 1
            if failure.final or failures == TRIES:
                raise _given_up(source, part.parent, str(failure)) from None
            seconds = max(failure.wait, SHORTEST_PAUSE * 2 ** (failures - 1))
            progress.say(f"{source.name}: the server {failure}; trying again in {seconds:.0f} s")
            progress.pause(seconds)


def _receive(source: Source, part: Path, progress: Progress) -> None:
    have = size_of(part) if size_of(part) < source.size else 0
    with _ask(source, have) as reply:
        start = _start(reply, have, source.size)
        progress.advance(start - size_of(part))
        with part.open("ab" if start else "wb") as file:
            for chunk in _chunks(reply, source.size - start):
                file.write(chunk)
                progress.advance(len(chunk))
    if size_of(part) < source.size:
        raise TransferError(f"broke off after {size_of(part):,} of {source.size:,} bytes")


def _ask(source: Source, have: int) -> HTTPResponse:
    request = Request(source.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 (see sources.py)
    try:
        reply: HTTPResponse = urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except HTTPError as error:
        with error:
            refused = HTTPStatus.BAD_REQUEST <= error.code < HTTPStatus.INTERNAL_SERVER_ERROR
            wait = error.headers.get("Retry-After", "")
            raise TransferError(
                f"answers {error.code} {error.reason}",
                final=refused and error.code not in _MAY_PASS,
                wait=min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0,
            ) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise TransferError(f"cannot be reached ({reason})") from None
    return reply


def _start(reply: HTTPResponse, asked: int, size: int) -> int:
    """The first byte that the server sends: 0 from one that ignores ranges, or was not asked for one."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        content_range = reply.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if not found or int(found[1]) != asked or found[2] not in ("*", str(size)):
            raise TransferError(f"sends the range {content_range!r}, asked for {asked:,} on, of {size:,}")
        return asked
    length = reply.headers.get("Content-Length", str(size))
    if length != str(size):
        raise TransferError(f"sends a file of {length} bytes, not of {size}")
    return 0


def _chunks(reply: HTTPResponse, count: int) -> Iterator[bytes]:
    """What arrives of `count` bytes; it ends early where the server does."""
    try:
        while count and (chunk := reply.read1(min(CHUNK, count))):
            count -= len(chunk)
            yield chunk
    except (OSError, HTTPException) as error:
        raise TransferError(f"broke off ({error or type(error).__name__})") from None


def _given_up(source: Source, folder: Path, what: str) -> InputError:
    return InputError(
        f"{folder / source.name}: {source.url} {what}. Run the same command again to go on where it was, or "
        f"fetch {source.name} with a browser from {BY_HAND}, put it into {folder}, and run the command again"
    )
