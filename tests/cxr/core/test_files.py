import os
from collections.abc import Callable
from hashlib import sha256 as hashlib_sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core import files
from cxr.core.errors import InputError
from cxr.core.files import atomic_write, open_file, read_utf8, sha256, write_csv, write_json
from tests.fixtures.stages import files_in


def write_half(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
    raise FileNotFoundError


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert files_in(tmp_path) == {"new/folder/file"}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "old"
    assert files_in(tmp_path) == {"file"}


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "deep").mkdir(parents=True)
    (path / "deep/old").touch()
    with pytest.raises(FileNotFoundError), atomic_write(path) as temporary:
        write_half(temporary / "file")
    assert files_in(tmp_path) == {"folder/deep/old"}
    with atomic_write(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert files_in(tmp_path) == {"folder/new"}


def test_leftovers_of_a_killed_run_are_overwritten(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "out") as temporary:
        temporary.touch()
    for leave in (lambda: temporary.write_text("longer than what follows"), temporary.mkdir):
        leave()
        write_json({"a": 1}, tmp_path / "out")
        assert (tmp_path / "out").read_text() == '{\n  "a": 1\n}\n'
        assert files_in(tmp_path) == {"out"}


def test_a_hard_link_in_the_cache_keeps_its_bytes(tmp_path: Path) -> None:
    cached, out = tmp_path / "cached", tmp_path / "out"
    cached.write_text("cached")
    cached.chmod(0o444)
    os.link(cached, out)
    write_csv(pd.DataFrame({"a": [1]}), out)
    assert cached.read_text() == "cached"
    assert out.read_text() == "a\n1\n"


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    values = pd.DataFrame({"a": np.random.default_rng(0).random(100), "b": 1 / 3})
    write_csv(values, tmp_path / "a.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), values, check_exact=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_in_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": value}, tmp_path / "a.json")
    assert files_in(tmp_path) == set()


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib_sha256(content).hexdigest()


def make_device(path: Path, kind: str) -> Path:
    """Create a FIFO, a link to an endless device, or a folder at `path`; return it."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
@pytest.mark.parametrize("read", [open_file, read_utf8, sha256])
def test_only_regular_files_are_read(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="file is not a regular file, but a folder, pipe or device"):
        read(make_device(tmp_path / "file", kind))


def test_a_link_is_followed_and_a_dangling_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_utf8(tmp_path / "link") == "text"
    (tmp_path / "file").unlink()
    with pytest.raises(FileNotFoundError):
        read_utf8(tmp_path / "link")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 10)
    (tmp_path / "file").write_text("0123456789")
    assert read_utf8(tmp_path / "file") == "0123456789"
    (tmp_path / "file").write_text("0123456789a")
    with pytest.raises(InputError, match="file has 11 bytes, more than the limit of 10"):
        read_utf8(tmp_path / "file")


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "file").write_bytes("a é\r\n".encode(encoding))
        assert read_utf8(tmp_path / "file") == "a é\r\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_text_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "file").write_bytes("a é".encode(encoding))
    with pytest.raises(InputError, match="file is not text in UTF-8; save it in this encoding"):
        read_utf8(tmp_path / "file")


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"{name} is a device or pipe, not a file"):
            write_json({}, tmp_path / name)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()
    assert files_in(tmp_path) == {"pipe", "link"}
