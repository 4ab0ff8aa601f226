"""Tests of the download with a local server that simulates failures. NIH's server is never contacted."""

import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path
from urllib.request import Request
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest

from cxr.core.errors import InputError
from cxr.images.limits import MAX_BYTES
from cxr.images.raw_images import RawImages
from stages import resize, sample
from tests.fixtures.faulty_server import FaultyServer, serving
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of, files_in, write_params
from tests.fixtures.terminal import assert_bar_shown, simulate_terminal
from tools.download import archives, command, disk_space, import_local, sources, transfer
from tools.download.archives import check_member_paths, tar_to_zip
from tools.download.sources import Source

ROWS = numbered_rows(30)
TABLES = ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt")
TARS = tuple(f"images_{number:03d}.tar.gz" for number in (1, 2, 3))
ZIPS = {name.replace(".tar.gz", ".zip") for name in TARS}
COMPLETE = ZIPS | set(TABLES)
FIRST = TARS[0]


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set with 30 images, as single files with the four tables."""
    folder = write_nih(tmp_path_factory.mktemp("nih"), ROWS, side=64)
    names = [image for image, _, _ in ROWS]
    (folder / "train_val_list.txt").write_text("\n".join(names[:20]), encoding="utf-8")
    (folder / "test_list.txt").write_text("\n".join(names[20:]), encoding="utf-8")
    (folder / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def files(nih: Path) -> dict[str, bytes]:
    """The files of the server: three archives of ten images each, and the tables."""
    images = sorted((nih / "images").iterdir())
    tars = {name: tar_of(images[10 * number : 10 * number + 10]) for number, name in enumerate(TARS)}
    return tars | {name: (nih / name).read_bytes() for name in TABLES}


def tar_of(images: list[Path], *odd: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path in images:
            tar.add(path, f"images/{path.name}")
        for member in odd:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return content.getvalue()


def as_sources(names: tuple[str, ...], server: FaultyServer) -> tuple[Source, ...]:
    found = ((name, server.files[name]) for name in names)
    return tuple(
        Source(name, server.url(name), len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        for name, content in found
    )


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A running server that replaces NIH's, with short timeouts and pauses."""
    with serving(files) as running:
        for module in (command, import_local):
            monkeypatch.setattr(module, "ARCHIVES", as_sources(TARS, running))
            monkeypatch.setattr(module, "TABLES", as_sources(TABLES, running))
        monkeypatch.setattr(transfer, "MIN_PAUSE", 0.001)
        monkeypatch.setattr(transfer, "TIMEOUT", 0.4)
        yield running


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> "Getter":
    return Getter(monkeypatch, capsys, tmp_path / "raw")


class Getter:
    """Runs the command in this process and returns its output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.monkeypatch, self.capsys, self.folder = monkeypatch, capsys, folder

    def __call__(self, *arguments: str) -> str:
        self.monkeypatch.setattr(sys, "argv", ["download", str(self.folder), *arguments])
        command.main()
        return self.capsys.readouterr().out


def assert_complete(folder: Path, nih: Path) -> None:
    assert files_in(folder) == COMPLETE
    with RawImages(folder) as images:
        for path in (nih / "images").iterdir():
            assert images.read(path.name) == path.read_bytes()
    for name in TABLES:
        assert (folder / name).read_bytes() == (nih / name).read_bytes()


def half_of(server: FaultyServer, name: str) -> str:
    return f"bytes={len(server.files[name]) // 2}-"


def test_the_list_of_sources_is_consistent() -> None:
    assert len(sources.ARCHIVES) == 12
    assert sum(source.size for source in sources.ARCHIVES) == 45_079_862_784
    everything = (*sources.ARCHIVES, *sources.TABLES)
    assert all(len(source.md5) == 32 and source.url.startswith("https://") for source in everything)
    assert len({field for source in everything for field in (source.name, source.url, source.md5)}) == 48


@pytest.mark.real_data
def test_the_checksums_of_the_expert_labels_match_the_real_ones(shared: Path) -> None:
    for source in sources.EXPERT_LABELS:
        content = (shared / "nih-expert-labels" / source.name).read_bytes()
        assert (len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()) == (source.size, source.md5)


def test_expert_labels_are_downloaded_on_request_and_imported(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(source.name for source in sources.EXPERT_LABELS)
    contents = {name: f"content of {name}".encode() for name in names}
    monkeypatch.setattr(server, "files", server.files | contents)
    labels = tuple(source._replace(page="https://a/page") for source in as_sources(names, server))
    monkeypatch.setattr(command, "EXPERT_LABELS", labels)
    server.faults[names[0]] = ["404 always"]
    with pytest.raises(InputError, match=f"{names[0]}: .* answers 404 .* with a browser from https://a/page"):
        get("--expert-labels")
    assert files_in(get.folder) == COMPLETE | set(names[1:])
    server.faults[names[0]] = []
    get("--expert-labels")
    assert (get.folder / names[0]).read_bytes() == contents[names[0]]
    get.folder = tmp_path / "imported"
    get("--from", str(tmp_path / "raw"))
    assert files_in(get.folder) == COMPLETE | set(names)


@pytest.mark.real_data
def test_the_checksums_of_the_tables_match_the_real_tables(shared: Path) -> None:
    for source in sources.TABLES:
        content = (shared / "nih-metadata" / source.name).read_bytes()
        # The copies differ from NIH's files, whose lists have no final newline and whose table has Patient Sex.
        content = content.rstrip(b"\n") if source.name.endswith(".txt") else content
        content = content.replace(b"Patient Gender", b"Patient Sex")
        assert (len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()) == (source.size, source.md5)


def test_all_files_are_downloaded_and_the_next_command_is_printed(server: FaultyServer, get: Getter, nih: Path) -> None:
    output = get()
    assert_complete(get.folder, nih)
    assert output.count("10 images\n") == 3
    assert output.endswith(f"{get.folder}: complete, 30 images\nnext: dvc exp run -S raw_dir={get.folder}\n")
    server.requests.clear()
    get()
    assert server.requests == []


@pytest.mark.slow
def test_sample_and_resize_read_the_download(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get()
    monkeypatch.chdir(tmp_path)
    packed = []
    for raw_dir in (get.folder, nih):
        write_params(tmp_path, raw_dir=str(raw_dir), image_size=32, **{"sample.size": 20})
        sample.main()
        resize.main()
        packed.append(Path("data/images.npy").read_bytes())
    assert packed[0] == packed[1]
    assert np.load("data/images.npy").shape == (20, 32, 32)
    assert len(Path("data/official.csv").read_text(encoding="utf-8").splitlines()) == 21


@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["cut", "cut", "cut"],
        ["drop"],
        ["503", "503", "429"],
        ["page"],
        ["wrong"],
        ["cut", "wrong"],
        ["stall"],
        ["slow"],
        ["moved"],
        ["no length"],
        ["cut", "no ranges"],
        ["cut", "other range"],
        ["bad length"],
        ["page no length", "cut"],
        ["trickle"],
        ["cut", "503", "cut", "drop", "moved", "stall", "wrong", "cut"],
    ],
    ids=" ".join,
)
def test_temporary_failures_end_with_the_right_bytes(
    server: FaultyServer, get: Getter, nih: Path, faults: list[str]
) -> None:
    server.faults[FIRST] = list(faults)
    server.faults["test_list.txt"] = list(faults)
    get()
    assert server.faults[FIRST] == []
    assert_complete(get.folder, nih)


def test_an_interrupted_transfer_is_resumed(server: FaultyServer, get: Getter) -> None:
    server.faults[FIRST] = ["cut"]
    output = get()
    assert server.ranges(FIRST) == [None, half_of(server, FIRST)]
    assert f"{FIRST}: the server closed the connection after {len(server.files[FIRST]) // 2:,} of" in output


def test_the_range_is_kept_in_a_redirect(server: FaultyServer, get: Getter) -> None:
    server.faults[FIRST] = ["cut", "moved"]
    get()
    assert server.ranges(FIRST) == [None, half_of(server, FIRST), half_of(server, FIRST)]


@pytest.mark.parametrize(
    ("fault", "problem", "requests"),
    [
        ("404 always", "answers 404 Not Found", 1),
        ("503 always", "answers 503 Service Unavailable", transfer.MAX_TRIES),
        ("drop always", "cannot be reached", transfer.MAX_TRIES),
        ("page always", "sends a file of 30 bytes instead of", transfer.MAX_TRIES),
        ("wrong always", "sends a file with MD5", 2),
        ("trickle always", "sends only ", transfer.MAX_TRIES),
        ("page no length always", "closed the connection after 30 of ", transfer.MAX_TRIES),
        ("bad length always", "sends a file of nonsense bytes", transfer.MAX_TRIES),
        (
            "moved always",
            "answers 302 The HTTP server returned a redirect error that would lead to an infinite loop",
            5,
        ),
        ("to a file always", "answers 302 ", 1),
        ("to FTP always", "redirects to ftp://127.0.0.1:1/a", 1),
    ],
)
def test_a_permanent_failure_is_reported_and_other_files_are_kept(
    server: FaultyServer, get: Getter, nih: Path, fault: str, problem: str, requests: int
) -> None:
    server.faults[FIRST] = [fault]
    with pytest.raises(InputError) as raised:
        get()
    message = str(raised.value)
    assert message.startswith(f"{get.folder / FIRST}: {server.url(FIRST)} {problem}")
    assert "Run the command again to resume" in message
    assert "with a browser" in message
    assert len(server.ranges(FIRST)) == requests
    assert files_in(get.folder) - {f"{FIRST}.part"} == COMPLETE - {"images_001.zip"}
    server.faults[FIRST] = []
    server.requests.clear()
    get()
    assert {name for name, _ in server.requests} == {FIRST}
    assert_complete(get.folder, nih)


def test_a_redirect_from_https_is_not_followed_to_http() -> None:
    def redirect(url: str, target: str) -> Request | None:
        return transfer._Redirects().redirect_request(Request(url), io.BytesIO(), 302, "", HTTPMessage(), target)  # noqa: S310

    with pytest.raises(transfer.TransferError, match="redirects to http://a/b"):
        redirect("https://a/b", "http://a/b")
    for url, target in (("https://a/b", "https://c/d"), ("http://a/b", "https://a/b"), ("http://a/b", "http://c/d")):
        assert redirect(url, target)


def test_a_server_that_always_restarts_the_file_is_a_failure(server: FaultyServer, get: Getter) -> None:
    server.faults[FIRST] = ["starts over always"]
    with pytest.raises(InputError, match="closed the connection after"):
        get()
    assert len(server.ranges(FIRST)) == transfer.MAX_TRIES
    assert not (get.folder / FIRST).exists()


def test_all_failures_are_reported_at_once(server: FaultyServer, get: Getter) -> None:
    for name in TARS[1:]:
        server.faults[name] = ["404 always"]
    with pytest.raises(InputError) as raised:
        get()
    lines = str(raised.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [str(get.folder / name) for name in TARS[1:]]


def test_pauses_double_and_respect_retry_after(
    server: FaultyServer, get: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(command.Progress, "pause", lambda _, seconds: pauses.append(seconds))
    monkeypatch.setattr(transfer, "MIN_PAUSE", 1.0)
    server.faults[FIRST] = ["503 always"]
    server.retry_after = "5"
    with pytest.raises(InputError):
        get()
    assert pauses == [5, 5, 5, 8, 16, 32]


def test_a_terminal_shows_a_bar_with_the_remaining_time(
    server: FaultyServer, get: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = simulate_terminal(monkeypatch)
    server.faults[FIRST] = ["wrong", "slow"]
    get()
    for what in ("download", "download and convert"):
        assert_bar_shown(terminal.getvalue(), what)
        assert terminal.getvalue().rpartition(f"{what}: ")[2].startswith("100%")


@pytest.mark.slow
@pytest.mark.parametrize("when", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_is_resumed(server: FaultyServer, get: Getter, nih: Path, when: signal.Signals) -> None:
    server.faults[FIRST] = ["stall always"]
    process = start(get.folder, server)
    part = get.folder / f"{FIRST}.part"
    deadline = time.monotonic() + 20
    others = set(TABLES) | {"images_002.zip", "images_003.zip"}
    while not (get.folder.is_dir() and files_in(get.folder) == others | {part.name} and part.stat().st_size):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(when)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (128 + when if when == signal.SIGTERM else -when)
    assert "Traceback" not in errors
    assert errors.strip().endswith("error: interrupted" if when == signal.SIGINT else "")
    assert not any(name.endswith(("001.zip", "001.tar.gz")) for name in files_in(get.folder))
    server.faults[FIRST] = []
    server.requests.clear()
    size = part.stat().st_size
    get()
    assert server.requests == [(FIRST, f"bytes={size}-")]
    assert_complete(get.folder, nih)


def start(folder: Path, server: FaultyServer) -> subprocess.Popen[str]:
    """Start the command in a subprocess, with this server instead of NIH's."""
    script = f"""
import sys
from cxr.core.errors import run_as_script
from cxr.core.interrupts import exit_on_sigterm
from tools.download import command, import_local, transfer
from tools.download.sources import Source
for module in (command, import_local):
    module.ARCHIVES = {as_sources(TARS, server)!r}
    module.TABLES = {as_sources(TABLES, server)!r}
transfer.TIMEOUT, transfer.MIN_PAUSE = 0.4, 0.01
sys.argv = ["download", {str(folder)!r}]
exit_on_sigterm()
run_as_script(command.main)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", [signal.SIGINT, signal.SIGTERM])
def test_a_conversion_that_is_stopped_leaves_no_file(tmp_path: Path, when: signal.Signals) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    large = [tarfile.TarInfo(f"{number}.png") for number in range(20_000)]
    for member in large:
        member.size = 1000
    (source / "images_020.tar.gz").write_bytes(tar_of([], *large))
    folder = tmp_path / "raw"
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.download", str(folder), "--from", str(source)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (folder.is_dir() and files_in(folder)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(when)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (128 + when if when == signal.SIGTERM else -when)
    assert "Traceback" not in errors
    assert files_in(folder) == set()


def test_a_killed_conversion_is_repeated(server: FaultyServer, get: Getter, nih: Path) -> None:
    get.folder.mkdir()
    (get.folder / FIRST).write_bytes(server.files[FIRST])
    (get.folder / ".images_001.zip.partial").write_bytes(b"PK half")
    (get.folder / f"{TARS[1]}.part").write_bytes(server.files[TARS[1]])
    (get.folder / f"{TARS[2]}.part").write_bytes(server.files[TARS[2]] + b"too long")
    get()
    assert server.ranges(FIRST) == server.ranges(TARS[1]) == []
    assert server.ranges(TARS[2]) == [None]
    assert_complete(get.folder, nih)


def test_an_archive_that_a_killed_run_converted_is_removed(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path
) -> None:
    get()
    (get.folder / FIRST).write_bytes(server.files[FIRST])
    get()
    assert_complete(get.folder, nih)
    mine = shutil.copytree(nih, tmp_path / "mine")
    (mine / FIRST).write_bytes(server.files[FIRST])
    get.folder = mine
    get()
    assert (mine / FIRST).is_file()


def test_a_local_archive_that_is_not_nihs_is_reported_and_kept(server: FaultyServer, get: Getter) -> None:
    get.folder.mkdir()
    (get.folder / FIRST).write_bytes(server.files[TARS[1]])
    with pytest.raises(InputError, match=r"images_001.tar.gz is not NIH's archive: its size is"):
        get()
    assert (get.folder / FIRST).read_bytes() == server.files[TARS[1]]


def test_two_runs_cannot_use_one_folder(server: FaultyServer, get: Getter) -> None:
    get.folder.mkdir()
    with command.lock(get.folder), pytest.raises(InputError, match=r"another download into .* is running"):
        get()
    get()


def test_a_full_disk_is_reported_before_an_archive_is_requested(
    server: FaultyServer, get: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(InputError, match=r"needs 0.0 GB more but the disk has only 0.0 GB free"):
        get()
    assert {name for name, _ in server.requests} == set(TABLES)


def test_the_required_space_includes_zips_and_the_archives_of_all_workers(tmp_path: Path) -> None:
    needed = command.required_space(sources.ARCHIVES, tmp_path)
    largest = 4_187_084_020 + 4_181_556_296 + 4_111_327_929
    assert needed == pytest.approx(45_079_862_784 * 1.02 + largest)
    (tmp_path / "images_011.tar.gz.part").write_bytes(bytes(1000))
    assert command.required_space(sources.ARCHIVES, tmp_path) == pytest.approx(needed - 1000)


def test_the_zip_is_deterministic_and_keeps_the_order(files: dict[str, bytes], tmp_path: Path) -> None:
    tar = tmp_path / FIRST
    tar.write_bytes(files[FIRST])
    seen: list[int] = []
    assert tar_to_zip(tar, tmp_path / "a.zip", seen.append) == 10
    os.utime(tar, (1, 1))
    tar_to_zip(tar, tmp_path / "b.zip", seen.append)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with ZipFile(tmp_path / "a.zip") as archive, tarfile.open(tar) as source:
        assert archive.namelist() == source.getnames()
        assert {entry.compress_type for entry in archive.infolist()} == {ZIP_STORED}
    assert sum(seen) == 2 * len(files[FIRST])


def test_a_zip_is_synced_before_it_is_renamed(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, archive = tmp_path / FIRST, tmp_path / "images_001.zip"
    tar.write_bytes(files[FIRST])
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, archive.exists())))
    tar_to_zip(tar, archive, int)
    assert synced == [(archive.stat().st_size, False)]


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "images/../../evil.png", "a\\..\\b.png", "C:\\a.png"])
def test_paths_outside_the_folder_are_rejected(nih: Path, tmp_path: Path, name: str) -> None:
    tar = tmp_path / FIRST
    tar.write_bytes(tar_of(sorted((nih / "images").iterdir())[:2], tarfile.TarInfo(name)))
    with pytest.raises(InputError, match="a path outside its folder"):
        tar_to_zip(tar, tmp_path / "images_001.zip", print)
    assert files_in(tmp_path) == {FIRST}


@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[2J.png", "\udcff.png"])
def test_names_that_cannot_be_printed_are_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / FIRST).write_bytes(tar_of([], tarfile.TarInfo(name)))
    with pytest.raises(InputError, match="a name with control characters or not in UTF-8") as raised:
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)
    assert str(raised.value).isprintable()


def test_paths_inside_the_folder_are_accepted() -> None:
    check_member_paths(["images/a.png", "./images/b.png", "images/", "..a.png", "a..png"], Path("a.zip"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_not_a_regular_file_is_rejected(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("images/a.png")
    member.type, member.linkname = kind, "/etc/passwd"
    (tmp_path / FIRST).write_bytes(tar_of([], member))
    with pytest.raises(InputError, match="not a regular file"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


@pytest.mark.parametrize("cut", [0, 10, 500, -100])
def test_a_damaged_archive_gives_no_zip(files: dict[str, bytes], tmp_path: Path, cut: int) -> None:
    (tmp_path / FIRST).write_bytes(files[FIRST][:cut])
    with pytest.raises(InputError, match=r"images_001.tar.gz (cannot be unpacked|has no PNGs)"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)
    assert files_in(tmp_path) == {FIRST}


def test_a_damaged_header_is_not_taken_for_the_end(files: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(files[FIRST]))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        header = tar.getmembers()[5].offset
    content[header + 150] ^= 1
    (tmp_path / FIRST).write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"images_001.tar.gz cannot be unpacked: bad checksum"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


def test_a_wrong_checksum_is_found(files: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(files[FIRST])
    content[-5] ^= 1
    (tmp_path / FIRST).write_bytes(content)
    with pytest.raises(InputError, match=r"images_001.tar.gz cannot be unpacked: CRC check failed"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


def tar_with_header(name: str, kind: bytes, size: int) -> bytes:
    """A tar.gz with the header of a member, but without its content."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_member_that_is_too_large_is_not_read(tmp_path: Path, kind: bytes) -> None:
    for size in (MAX_BYTES + 1, 2**60):
        (tmp_path / FIRST).write_bytes(tar_with_header("images/a.png", kind, size))
        with pytest.raises(InputError, match=rf"'images/a.png' has {size:,} bytes, more than the limit of 268,435,456"):
            tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


def test_the_size_in_an_extended_header_is_limited(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"size": str(2**50)}
        tar.addfile(member)
    (tmp_path / FIRST).write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=r"'a.png' has 1,125,899,906,842,624 bytes"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


@pytest.mark.parametrize("suffix", ["png", "txt"])
def test_an_archive_that_is_small_only_because_it_is_compressed_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(archives, "MIN_LIMIT", 10**6)
    odd = [tarfile.TarInfo(f"{number}.{suffix}") for number in range(4)]
    for member in odd:
        member.size = 500_000
    (tmp_path / FIRST).write_bytes(tar_of([], *odd))
    with pytest.raises(InputError, match=r"images_001.tar.gz unpacks to more than 0.0 GB"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)
    assert files_in(tmp_path) == {FIRST}


def test_a_chain_of_long_names_is_reported(tmp_path: Path) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2
    chain = (name.tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)) * 2000
    (tmp_path / FIRST).write_bytes(gzip.compress(chain))
    with pytest.raises(InputError, match="cannot be unpacked: maximum recursion depth"):
        tar_to_zip(tmp_path / FIRST, tmp_path / "images_001.zip", print)


def kaggle(nih: Path, folder: Path) -> Path:
    """Write Kaggle's layout: images_0NN/images/*.png."""
    for number, path in enumerate(sorted((nih / "images").iterdir())):
        target = folder / f"images_{1 + number // 10:03d}" / "images" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return with_tables(nih, folder)


def single_files(nih: Path, folder: Path) -> Path:
    shutil.copytree(nih / "images", folder)
    return with_tables(nih, folder)


def zipped(nih: Path, folder: Path) -> Path:
    """Write one zip of all images, as downloaded from Kaggle."""
    folder.mkdir()
    with ZipFile(folder / "archive.zip", "w", ZIP_DEFLATED) as archive:
        for path in (nih / "images").iterdir():
            archive.write(path, f"images_001/images/{path.name}")
    return with_tables(nih, folder)


def with_tables(nih: Path, folder: Path) -> Path:
    for name in TABLES:
        shutil.copyfile(nih / name, folder / name)
    return folder


def tars(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_has_all(folder: Path, nih: Path) -> None:
    with RawImages(folder) as images:
        assert all(images.read(path.name) == path.read_bytes() for path in (nih / "images").iterdir())


@pytest.mark.parametrize("layout", [kaggle, single_files, zipped])
def test_existing_files_are_imported_as_hard_links(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, layout: "type[Path]"
) -> None:
    source = layout(nih, tmp_path / "mine")
    before = files_in(source)
    output = get("--from", str(source))
    assert "complete, 30 images\nnext: dvc exp run" in output
    assert_has_all(get.folder, nih)
    inodes = {(source / name).stat().st_ino for name in before}
    assert {(get.folder / name).stat().st_ino for name in files_in(get.folder)} == inodes
    assert files_in(source) == before
    assert server.requests == []
    get("--from", str(source))
    get()
    assert server.requests == []


def test_nihs_archives_are_converted_and_kept(
    server: FaultyServer, get: Getter, nih: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = tars(files, tmp_path / "mine")
    get("--from", str(source))
    assert_complete(get.folder, nih)
    assert files_in(source) == set(files)


def test_files_are_copied_if_the_file_system_has_no_links(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(import_local.os, "link", cannot)
    source = kaggle(nih, tmp_path / "mine")
    get("--from", str(source))
    assert_has_all(get.folder, nih)
    assert files_in(get.folder) == files_in(source)


def test_missing_images_are_reported_and_can_be_downloaded(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path
) -> None:
    source = kaggle(nih, tmp_path / "mine")
    shutil.rmtree(source / "images_002")
    with pytest.raises(
        InputError, match=r"lacks 10 of the images in its table: 00000010_000.png, .* and 5 more.*tools.download"
    ):
        get("--from", str(source))
    get()
    assert_has_all(get.folder, nih)
    # Images that are there already are not stored twice.
    stored = [len(ZipFile(get.folder / name).namelist()) for name in sorted(ZIPS)]
    assert stored == [0, 10, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"", "has no images: neither images_0NN.tar.gz"),
        ("images_001.zip", b"PK half", "images_001.zip is not a complete zip archive"),
        (FIRST, b"half", "images_001.tar.gz is not NIH's archive"),
    ],
)
def test_files_that_cannot_be_imported_are_reported(
    server: FaultyServer, get: Getter, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        get("--from", str(source))
    assert files_in(get.folder) == set()


def test_a_zip_with_a_path_outside_its_folder_is_rejected(server: FaultyServer, get: Getter, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    with ZipFile(source / "images_001.zip", "w") as archive:
        archive.writestr("../a.png", b"")
    with pytest.raises(InputError, match="a path outside its folder"):
        get("--from", str(source))


def test_a_zip_with_too_large_a_member_is_rejected(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_local, "MAX_BYTES", 100)
    source = zipped(nih, tmp_path / "mine")
    with pytest.raises(InputError, match=r"archive.zip: images of more than 100 bytes: images_001/images/"):
        get("--from", str(source))
    assert files_in(get.folder) == set()


@pytest.mark.parametrize("offset", [6, 8, 28])
def test_a_zip_with_a_damaged_directory_is_rejected(
    server: FaultyServer, get: Getter, tmp_path: Path, offset: int
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        archive.writestr("é.png", b"")
    content = bytearray(stream.getvalue())
    content[content.index(b"PK\1\2") + offset] = 255
    content = content.replace("é".encode(), b"\xff\xff")
    (source / "images_001.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"images_001.zip (is not a complete zip archive|contains)"):
        get("--from", str(source))


@pytest.mark.parametrize("name", ["images_001.zip", FIRST, "a.png", "images/a.png", "test_list.txt"])
def test_pipes_and_links_that_lead_nowhere_are_rejected(
    server: FaultyServer, get: Getter, nih: Path, tmp_path: Path, name: str
) -> None:
    source = kaggle(nih, tmp_path / "mine")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).unlink(missing_ok=True)
    os.mkfifo(source / name)
    with pytest.raises(InputError, match=r"is not a regular file|neither files nor links to files"):
        get("--from", str(source))
    if name in TABLES:
        return  # a link to nothing is a missing table
    (source / name).unlink()
    (source / name).symlink_to(name)
    with pytest.raises(InputError, match=r"not a complete zip|neither files nor links to files"):
        get("--from", str(source))
    assert files_in(get.folder) == set()


def test_a_user_error_is_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        ([str(tmp_path / "raw"), "--from", str(tmp_path / "nonesuch")], "folder not found"),
        ([str(tmp_path / "raw"), "--from", str(tmp_path / "raw")], "is the target folder itself"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tools.download", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert message in error_of(done)
