"""Stages that are stopped by signals, and files that are written while the process is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from cxr.params import STAGES
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in, run_stage, write_params

# When each signal is sent, as a fraction of the time that the stage takes.
SIGNALS = [(signal.SIGINT, 0.4), (signal.SIGTERM, 0.8)]
NO_OUTPUTS = ("checkpoints", "nih")  # folders
# The outputs of a stage that later stages read.
WRITTEN = {
    "sample": ["data/sample.csv", "data/official.csv"],
    "split": ["data/split.csv"],
    "resize": ["data/images.npy", "data/images.json"],
    "train": ["data/models/test_resnet-1.safetensors", "data/curves.csv"],
}


class Finished(NamedTuple):
    """A folder in which all stages ran, and the seconds that each took."""

    folder: Path
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All stages, run on 60 images."""
    folder = tmp_path_factory.mktemp("finished")
    write_nih(folder / "nih", numbered_rows(60), side=64)
    write_params(
        folder,
        raw_dir=str(folder / "nih"),
        image_size=32,
        models=["test_resnet"],
        epochs=4,
        bootstrap_samples=100,
        **{"sample.size": 60},
    )
    seconds = {}
    for stage in STAGES:
        began = time.monotonic()
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
        seconds[stage] = time.monotonic() - began
    return Finished(folder, seconds)


def outputs(folder: Path) -> dict[str, bytes]:
    names = {name for name in files_in(folder) if not name.startswith(NO_OUTPUTS)}
    return {name: (folder / name).read_bytes() for name in names}


def start(stage: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"stages.{stage}"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def copy_inputs(stage: str, finished: Path, folder: Path) -> None:
    """Copy what the stages before `stage` wrote, and the parameters."""
    before = list(STAGES)[: list(STAGES).index(stage)]
    for name in ("params.yaml", *(name for earlier in before for name in WRITTEN[earlier])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((finished / name).read_bytes())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_stage_leaves_no_partial_output_and_runs_again(
    stage: str, finished: Finished, tmp_path: Path
) -> None:
    copy_inputs(stage, finished.folder, tmp_path)
    expected, before = outputs(finished.folder), outputs(tmp_path)
    for number, fraction in SIGNALS:
        copy_without_outputs(tmp_path, before)
        stop(stage, tmp_path, number, finished.seconds[stage] * fraction)
        for name, content in outputs(tmp_path).items():
            is_partial = name.rpartition("/")[2].endswith(".partial") or ".partial/" in name
            assert number != signal.SIGINT or not is_partial, f"{name} is left"
            # The curves grow during training.
            assert is_partial or content == expected[name] or name == "data/curves.csv", f"{name} is not complete"
    done = run_stage(stage, tmp_path)
    assert done.returncode == 0, done.stderr
    after = outputs(tmp_path)
    assert after == {name: expected[name] for name in after}


def copy_without_outputs(folder: Path, before: dict[str, bytes]) -> None:
    """Remove all files but those in `before`, and checkpoints, which a stopped training keeps too."""
    for name in outputs(folder).keys() - before.keys():
        (folder / name).unlink()


def stop(stage: str, folder: Path, number: signal.Signals, after: float) -> None:
    """Start a stage and send it a signal after some seconds; check how it ends."""
    process = start(stage, folder)
    time.sleep(after)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode in (-number, 0), err
    assert "Traceback" not in err
    if process.returncode and number == signal.SIGINT:
        assert err.strip().endswith("error: interrupted")
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert lines in ([], ["error: interrupted"])


# Writes a file and a folder in a child process, which is killed at its n-th operation on files, for n = 1, 2, …
KILLED_WRITES = """
import os, signal, sys
from pathlib import Path
from cxr.core.files import atomic_write

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
limit, seen = 10**9, 0

def count(event, arguments):
    global seen
    if event in EVENTS:
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)

def write(content):
    with atomic_write(Path("file")) as temporary:
        temporary.write_text(content * 3)
    with atomic_write(Path("folder")) as temporary:
        temporary.mkdir()
        for name in "abc":
            (temporary / name).write_text(content)

def state():
    file = Path("file").read_text()
    folder = {path.name: path.read_text() for path in Path("folder").iterdir()} if Path("folder").exists() else None
    return file, folder

def whole(content):
    return content * 3, dict.fromkeys("abc", content)

write("old")
sys.addaudithook(count)
for limit in range(1, 200):
    child = os.fork()
    if not child:
        seen = 0
        write("new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed, limit = limit, 10**9
    file, folder = state()
    assert file in ("oldoldold", "newnewnew"), file
    assert folder in (None, whole("old")[1], whole("new")[1]), (killed, folder)
    write("old")
    assert state() == whole("old")
    assert sorted(os.listdir(".")) == ["file", "folder"], os.listdir(".")
    if status == 0:
        break
print("kills", killed - 1)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 10
