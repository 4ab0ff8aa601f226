"""The doctor's answer on folders that lack something, and on machines that are played."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr.core.paths import CHECKPOINTS
from cxr.training.checkpoints import training_lock
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.project import ROOT, run
from tests.fixtures.stages import write_params
from tools.doctor import command, machine, project
from tools.doctor.remarks import Remark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty images that nothing is wrong with, and the working directory."""
    monkeypatch.chdir(tmp_path)
    write_nih(tmp_path / "raw", numbered_rows(30))
    (tmp_path / "weights").mkdir()
    write_params(tmp_path, raw_dir="raw", weights_dir="weights")
    return tmp_path


def answers() -> dict[str, Remark]:
    return {remark.about: remark for remark in project.remarks()}


def problems() -> list[str]:
    return [about for about, remark in answers().items() if remark.level == "problem"]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with these words, in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def play_program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """A program of this name comes first on the path."""
    path = folder / "bin" / name
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_the_demo_can_run_and_pytorch_is_loaded_last(tmp_path: Path) -> None:
    # Beside the checkout and not in it: a training may be running there.
    (tmp_path / ".dvc").mkdir()
    for name in ("requirements.txt", "params.yaml", ".dvc/config"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "data").symlink_to(ROOT / "data")
    run(tmp_path, "git", "init", "--quiet")
    program = """
import sys
from tools.doctor import command
def said():
    for remark in told():
        yield remark
        print("torch" in sys.modules)
told, command.remarks = command.remarks, said
command.main()
"""
    done = call(tmp_path, "-c", program)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.split() == ["ok", "params.yaml", "valid"] for line in lines)
    assert "1,200 synthetic images in data/demo" in done.stdout
    assert lines[-4] == "ok       models       timm knows resnet10t"
    if shutil.which("nvidia-smi") is None:
        assert "no GPU: the CPU is used" in done.stdout
        loaded = [line for line in lines if line in ("True", "False")]
        assert loaded == ["False"] * (len(loaded) - 2) + ["True"] * 2


def test_without_packages_it_says_so_and_exits_with_1(tmp_path: Path) -> None:
    # -S leaves site-packages out: a Python in which nothing is installed, DVC least of all.
    for name in ("requirements.txt", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    program = "from tools.doctor.command import main; main()"
    done = call(tmp_path, "-S", "-c", program)
    assert done.returncode == 1
    assert not done.stderr
    levels = {line[9:22].strip(): line[:9].strip() for line in done.stdout.splitlines()}
    assert [levels[about] for about in ("packages", "DVC", "project")] == ["problem"] * 3
    assert "pip install -r requirements.txt" in done.stdout


def test_nothing_is_wrong_where_all_is_there(folder: Path) -> None:
    assert problems() == []
    assert answers()["images"].said == "all 30 of the table are there"
    assert answers()["boxes"].level == "warning"


def test_broken_params_are_reported_and_end_with_exit_code_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(folder, lr=-1, epoks=3)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    monkeypatch.setattr(machine, "remarks", lambda: iter([Remark("ok", "machine", "played")]))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "epoks: no such parameter; did you mean epochs?" in said
    assert "lr: " in said
    assert said.startswith("ok       machine")
    (folder / "params.yaml").write_text("a: [", encoding="utf-8")
    assert problems() == ["params.yaml"]


def test_a_drawn_image_that_is_missing_is_a_problem_and_another_a_warning(folder: Path) -> None:
    (folder / "raw/images/00000007_000.png").unlink()
    assert problems() == ["images"]
    assert "00000007_000.png\n`python -m tools.download raw`" in answers()["images"].said
    write_params(folder, raw_dir="raw", weights_dir="weights", **{"sample.exclude": ["00000007_000.png"]})
    assert problems() == []
    assert answers()["images"].level == "warning"


def test_a_folder_without_table_or_images_is_a_problem(folder: Path) -> None:
    shutil.rmtree(folder / "raw/images")
    assert problems() == ["images"]
    (folder / "raw/Data_Entry_2017_v2020.csv").unlink()
    assert problems() == ["table"]
    write_params(folder, weights_dir="weights")
    assert "git checkout -- data/demo" in answers()["table"].said


def test_the_official_split_needs_nihs_lists(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", **{"split.method": "official"})
    assert problems() == ["own split"]
    names = [image for image, *_ in numbered_rows(30)]
    (folder / "raw/train_val_list.txt").write_text("\n".join(names[:20]), encoding="utf-8")
    assert "not the other" in answers()["own split"].said
    (folder / "raw/test_list.txt").write_text("\n".join(names[20:]), encoding="utf-8")
    assert problems() == []


def test_missing_weights_are_a_problem_only_where_they_are_asked_for(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", weights="imagenet", models=["resnet18", "resnet34"])
    (folder / "weights/resnet18.safetensors").touch()
    assert problems() == ["weights"]
    assert "`python -m tools.weights resnet34 --to weights`" in answers()["weights"].said
    (folder / "weights/resnet34.safetensors").touch()
    assert problems() == []
    write_params(folder, raw_dir="raw", weights_dir="elsewhere")
    assert "`mkdir -p elsewhere`" in answers()["weights"].said


def test_networks_that_timm_does_not_know_are_all_named(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", models=["resnet10", "resnet18", "densenet12"])
    assert problems() == ["models"]
    first, second = answers()["models"].said.splitlines()
    assert "knows no network 'resnet10'; did you mean resnet10t" in first
    assert "knows no network 'densenet12'; did you mean densenet121" in second


@pytest.mark.parametrize(
    ("asked", "gpus", "level"),
    [(1, 0, "ok"), (2, 0, "ok"), (9, 0, "warning"), (1, 2, "ok"), (2, 2, "ok"), (3, 2, "problem")],
)
def test_more_devices_than_there_are_are_a_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: int, gpus: int, level: str
) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", devices=asked)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert answers()["devices"].level == level


def test_without_pytorch_all_else_is_told_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tools.doctor.networks", None)
    monkeypatch.delattr("tools.doctor.networks", raising=False)
    assert list(answers())[-2:] == ["room", "models"]
    assert problems() == ["models"]
    assert "pip install -r requirements.txt" in answers()["models"].said


def test_a_running_training_is_named(folder: Path) -> None:
    with training_lock(CHECKPOINTS):
        process = CHECKPOINTS.joinpath(".lock").read_text(encoding="ascii")
        assert problems() == ["training"]
        assert f"process {process} is training here" in answers()["training"].said
    assert problems() == []


def test_other_versions_are_a_warning_and_a_builds_suffix_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "requirements.txt").write_text("# pinned\ntorch==2.0.0\ntimm==1.0.0\n", encoding="utf-8")
    monkeypatch.setattr(machine, "installed", {"torch": "2.0.0+cpu", "timm": "1.0.1"}.get)
    (remark,) = machine.packages()
    assert remark.level == "warning"
    assert remark.said.startswith("timm 1.0.1 (pinned: 1.0.0): ")
    monkeypatch.setattr(machine, "installed", {"torch": "2.0.0"}.get)
    (remark,) = machine.packages()
    assert remark.level == "problem"
    assert remark.said.startswith("timm missing: `make repro` installs all")


def test_the_python_that_dvc_would_run_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert [remark.level for remark in machine.python()] == ["ok"]
    play_program(folder, monkeypatch, "python", "exit 1")
    assert [remark.level for remark in machine.python()] == ["warning"]
    monkeypatch.setenv("PATH", str(folder))
    assert [remark.level for remark in machine.python()] == ["problem"]


def test_a_gpu_is_told_with_memory_and_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_program(folder, monkeypatch, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB, 570.1'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (remark,) = machine.gpu()
    assert remark.level == "warning"
    assert "PyTorch cannot use it" in remark.said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert list(machine.gpu()) == [Remark("ok", "GPU", "NVIDIA H100, 81559 MiB, driver 570.1, CUDA 13.0")]


def test_a_driver_that_fails_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_program(folder, monkeypatch, "nvidia-smi", "exit 9")
    (remark,) = machine.gpu()
    assert remark.level == "warning"


@pytest.mark.parametrize(
    ("said", "level", "shown"),
    [
        ("Cache types: hardlink, symlink", "ok", "outputs by hardlink"),
        ("Cache types: ", "warning", "outputs by copy"),
        ("Cache types: <https://error.dvc.org/no-dvc-cache>", "ok", "known once"),
        ("Platform: one", "problem", "finds no repository"),
    ],
)
def test_the_link_is_the_first_wanted_that_the_file_system_has(
    monkeypatch: pytest.MonkeyPatch, said: str, level: str, shown: str
) -> None:
    replies = {"doctor": f"DVC version: 3\n{said}\nCaches: local", "config": "reflink,hardlink,symlink,copy"}
    monkeypatch.setattr(machine, "answer", lambda *words: replies[words[3]])
    (remark,) = machine.dvc()
    assert remark.level == level
    assert shown in remark.said
