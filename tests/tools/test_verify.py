"""`tools.verify` on a repository whose pipeline has one quick stage."""

import subprocess
import sys
from pathlib import Path

import pytest

from cxr.core import cpu
from tests.fixtures.project import ROOT, commit, run
from tools import verify
from tools.doctor import machine

PIPELINE = """
stages:
  train:
    cmd: python make.py
    deps: [make.py, raw]
    outs: [model.txt, plots: {cache: false}]
    metrics: [metrics.json: {cache: false}]
"""
STAGE = """
import os
from pathlib import Path

Path("model.txt").write_text(os.environ.get("CXR_PORTABLE", "1") + Path("raw/image").read_text())
Path("metrics.json").write_text('{"auroc": 0.5}')
Path("plots").mkdir(exist_ok=True)
Path("plots/roc.csv").write_text(os.environ.get("CXR_PORTABLE", "1"))
"""


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committed")
    for name, text in {"dvc.yaml": PIPELINE, "make.py": STAGE, "raw/image": "pixels", ".gitignore": "/raw\n"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / machine.CONSTRAINTS).write_text(f"numpy=={machine.installed('numpy')}\n", encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        run(folder, "git", "config", key, value)
    for command in (("init", "--quiet"), ("config", "core.analytics", "false"), ("repro", "--quiet")):
        run(folder, sys.executable, "-m", "dvc", *command)
    commit(folder, "Run the pipeline")
    return folder


@pytest.fixture
def clone(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of the repository with the images, which are not in git; the working directory."""
    run(tmp_path, "git", "clone", "--quiet", str(committed), "clone")
    (tmp_path / "clone/raw").symlink_to(committed / "raw")
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr(sys, "argv", ["verify"])
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        run(Path.cwd(), "git", "config", key, value)
    return Path.cwd()


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of each file in the workspace, without git's own."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts}


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `verify` prints when it fails."""
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 1
    return capsys.readouterr().out


@pytest.mark.skipif(not cpu.has_avx2(), reason="this processor has no AVX2")
def test_a_rebuilt_commit_passes(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(clone)
    verify.main()
    output = capsys.readouterr().out
    assert "all 3 outputs have the bytes of dvc.lock" in output
    assert "note: " not in output
    assert contents(clone) == before


def test_another_arithmetic_is_named(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_PORTABLE", "0")
    output = failure(capsys)
    assert "model.txt differs; plots differs" in output
    assert "metrics.json differs" not in output
    assert "plots/roc.csv" in output
    assert "- CXR_PORTABLE is 0" in output


def test_a_changed_byte_of_a_committed_metric_is_named(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / "metrics.json").write_text('{"auroc": 0.6}', encoding="utf-8")
    commit(clone, "Change the metrics")
    output = failure(capsys)
    assert "train: dvc.lock has another hash of metrics.json" in output
    assert "Files in git that the run changed: metrics.json" in output


def test_code_that_was_changed_after_the_run_is_named(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (clone / "make.py").open("a", encoding="utf-8") as code:
        code.write("# another comment\n")
    commit(clone, "Change the code")
    assert "train: dvc.lock has another hash of make.py" in failure(capsys)


def test_changes_that_are_not_committed_are_not_verified(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / "make.py").write_text("broken", encoding="utf-8")
    verify.main()
    assert "warning: the workspace has changes that are not committed" in capsys.readouterr().err


def test_a_package_of_another_version_is_named(clone: Path) -> None:
    (clone / machine.CONSTRAINTS).write_text("numpy==0.9\n", encoding="utf-8")
    assert f"numpy is {machine.installed('numpy')} instead of 0.9" in " ".join(verify.causes())


def test_a_setting_of_the_user_is_named(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setattr(cpu, "has_avx2", lambda: True)
    assert "the environment variable MKL_CBWR is AVX2 instead of COMPATIBLE" in list(verify.causes())


def test_another_processor_is_told_what_to_expect(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "arm64")
    [cause] = verify.causes()
    assert cause.startswith("this processor is arm64 without AVX2; results repeat on x86-64 processors with AVX2")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "tools.verify"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: git show: ")
    assert "run from the top of a clone with a committed dvc.lock" in done.stderr
