"""Output files that the user names. Devices are pseudo-terminals and FIFOs of the test, never those of the machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from cxr.core.errors import InputError
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in
from tools.output_file import check_output_file, check_output_folder, output_file

WRITE = """
import sys
from pathlib import Path
from tools.output_file import output_file
print("before")
with output_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("content\\n")
print("after")
"""


def write(path: Path, content: str = "content") -> None:
    with output_file(path) as temporary:
        temporary.write_text(content)


def test_a_file_is_replaced_and_a_link_keeps_pointing_to_it(tmp_path: Path) -> None:
    target, link = tmp_path / "folder/target", tmp_path / "link"
    link.symlink_to("folder/target")
    for content in ("new", "newer"):
        write(link, content)
        assert link.is_symlink()
        assert target.read_text() == content
    assert files_in(tmp_path) == {"folder/target", "link"}


def test_a_pipe_receives_the_content_and_stays(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe, "x" * 200_000)
    reader.join(timeout=20)
    assert read == ["x" * 200_000]
    assert pipe.is_fifo()


def test_a_device_receives_the_content_and_stays() -> None:
    controller, terminal = os.openpty()
    path = Path(os.ttyname(terminal))
    write(path, "content\n")
    assert os.read(controller, 100) == b"content\r\n"
    assert path.is_char_device()
    for descriptor in (controller, terminal):
        os.close(descriptor)


@pytest.mark.parametrize("redirected", [False, True])
def test_standard_output_receives_the_content_in_order(tmp_path: Path, redirected: bool) -> None:
    command = [sys.executable, "-c", WRITE, "/dev/stdout"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "printed").open("w+") as printed:
        done = subprocess.run(
            command, env=environment, stdout=printed if redirected else subprocess.PIPE, text=True, check=True
        )
    assert ((tmp_path / "printed").read_text() if redirected else done.stdout) == "before\ncontent\nafter\n"
    assert Path("/dev/stdout").is_symlink()


def test_a_failure_leaves_the_output_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "file", "half\udcff")
    assert (tmp_path / "file").read_text() == "old"
    assert files_in(tmp_path) == {"file"}


@pytest.mark.parametrize("when", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_a_pipe_has_no_reader_leaves_no_file(tmp_path: Path, when: signal.Signals) -> None:
    (tmp_path / "temporary").mkdir()
    os.mkfifo(tmp_path / "pipe")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    script = f"from cxr.core.interrupts import exit_on_sigterm\nexit_on_sigterm()\n{WRITE}"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "pipe")], env=environment, text=True, stderr=subprocess.PIPE
    )
    while not any(name.endswith("output") for name in files_in(tmp_path)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(when)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if when == signal.SIGTERM else -signal.SIGINT)
    assert "Traceback" not in errors
    assert files_in(tmp_path) == {"pipe"}


def test_an_output_that_cannot_be_written_is_reported_beforehand(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path, problem in (
        (tmp_path, f" {tmp_path}: this is a folder"),
        (tmp_path / "pipe", f" {tmp_path}/pipe: this is a device or pipe"),
        (tmp_path / "file/deep/a.csv", f": {tmp_path}/file is not a folder that can be written to"),
    ):
        with pytest.raises(InputError, match=f"--output{problem}"):
            check_output_file("--output", path)
    check_output_file("--output", tmp_path / "pipe", allow_special=True)
    check_output_file("--output", tmp_path / "new/folder/a.csv")
    check_output_file("--output", Path("a.csv"))
    check_output_folder("--output", tmp_path / "new/folder")
    assert files_in(tmp_path) == {"pipe", "file"}
