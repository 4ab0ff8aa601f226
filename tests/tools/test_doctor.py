"""The checks of `tools.doctor` on folders with missing files and on simulated machines."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr.core.params import read_params
from cxr.core.paths import CHECKPOINTS
from cxr.params import Params
from cxr.training.checkpoints import training_lock
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.project import ROOT, run
from tests.fixtures.stages import write_params
from tools.doctor import command, machine, networks, project, supported
from tools.doctor.checks import Check
from tools.doctor.memory import MemoryEstimate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid data set of thirty images; the working directory."""
    monkeypatch.chdir(tmp_path)
    write_nih(tmp_path / "raw", numbered_rows(30))
    (tmp_path / "weights").mkdir()
    write_params(tmp_path, raw_dir="raw", weights_dir="weights")
    return tmp_path


def results() -> dict[str, Check]:
    return {check.subject: check for check in project.run_checks()}


def problems() -> list[str]:
    return [subject for subject, check in results().items() if check.level == "problem"]


def run_python(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def fake_program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Put a shell script of this name first on PATH."""
    path = folder / "bin" / name
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_the_demo_has_no_problems_and_pytorch_is_imported_last(tmp_path: Path) -> None:
    # Not in the checkout, where a training may be running.
    (tmp_path / ".dvc").mkdir()
    for name in ("requirements.txt", "constraints.txt", "params.yaml", ".dvc/config"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "data").symlink_to(ROOT / "data")
    run(tmp_path, "git", "init", "--quiet")
    program = """
import sys
from tools.doctor import command
def run_and_report():
    for check in run_checks():
        yield check
        print("torch" in sys.modules)
run_checks, command.run_checks = command.run_checks, run_and_report
command.main()
"""
    done = run_python(tmp_path, "-c", program)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.split() == ["ok", "params.yaml", "valid"] for line in lines)
    assert "1,200 synthetic images in data/demo" in done.stdout
    assert lines[-6] == "ok       models       timm has resnet10t"
    assert lines[-2].startswith("ok       GPU memory   resnet10t, 32 images on each GPU: about 1.")
    if shutil.which("nvidia-smi") is None:
        assert "no GPU: the CPU is used" in done.stdout
        loaded = [line for line in lines if line in ("True", "False")]
        assert loaded == ["False"] * (len(loaded) - 3) + ["True"] * 3


def test_missing_packages_are_reported_with_exit_code_1(tmp_path: Path) -> None:
    # -S disables site-packages, so no package is installed.
    for name in ("requirements.txt", "constraints.txt", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    program = "from tools.doctor.command import main; main()"
    done = run_python(tmp_path, "-S", "-c", program)
    assert done.returncode == 1
    assert not done.stderr
    levels = {line[9:22].strip(): line[:9].strip() for line in done.stdout.splitlines()}
    assert [levels[subject] for subject in ("packages", "DVC", "project")] == ["problem"] * 3
    assert "pip install -r requirements.txt" in done.stdout


def test_a_complete_folder_has_no_problems(folder: Path) -> None:
    assert problems() == []
    assert results()["images"].message == "all 30 images of the table exist"
    assert results()["boxes"].level == "warning"


def test_broken_params_are_reported_and_end_with_exit_code_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(folder, lr=-1, epoks=3)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    monkeypatch.setattr(machine, "run_checks", lambda: iter([Check("ok", "machine", "simulated")]))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    output = capsys.readouterr().out
    assert "epoks: unknown parameter; did you mean epochs?" in output
    assert "lr: " in output
    assert output.startswith("ok       machine")
    (folder / "params.yaml").write_text("a: [", encoding="utf-8")
    assert problems() == ["params.yaml"]


def test_a_missing_image_is_a_problem_only_if_it_is_in_the_sample(folder: Path) -> None:
    (folder / "raw/images/00000007_000.png").unlink()
    assert problems() == ["images"]
    assert "00000007_000.png\n`python -m tools.download raw`" in results()["images"].message
    write_params(folder, raw_dir="raw", weights_dir="weights", **{"sample.exclude": ["00000007_000.png"]})
    assert problems() == []
    assert results()["images"].level == "warning"


def test_a_folder_without_table_or_images_is_a_problem(folder: Path) -> None:
    shutil.rmtree(folder / "raw/images")
    assert problems() == ["images"]
    (folder / "raw/Data_Entry_2017_v2020.csv").unlink()
    assert problems() == ["table"]
    write_params(folder, weights_dir="weights")
    assert "git checkout -- data/demo" in results()["table"].message


def test_the_official_split_needs_its_lists(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", **{"split.method": "official"})
    assert problems() == ["split lists"]
    names = [image for image, *_ in numbered_rows(30)]
    (folder / "raw/train_val_list.txt").write_text("\n".join(names[:20]), encoding="utf-8")
    assert "not the other" in results()["split lists"].message
    (folder / "raw/test_list.txt").write_text("\n".join(names[20:]), encoding="utf-8")
    assert problems() == []


def test_missing_weights_are_a_problem_only_if_they_are_used(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", weights="imagenet", models=["resnet18", "resnet34"])
    (folder / "weights/resnet18.safetensors").touch()
    assert problems() == ["weights"]
    assert "`python -m tools.weights resnet34 --to weights`" in results()["weights"].message
    (folder / "weights/resnet34.safetensors").touch()
    assert problems() == []
    write_params(folder, raw_dir="raw", weights_dir="elsewhere")
    assert "`mkdir -p elsewhere`" in results()["weights"].message


def test_all_unknown_models_are_reported(folder: Path) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", models=["resnet10", "resnet18", "densenet12"])
    assert problems() == ["models"]
    first, second = results()["models"].message.splitlines()
    assert "has no model 'resnet10'; did you mean resnet10t" in first
    assert "has no model 'densenet12'; did you mean densenet121" in second


@pytest.mark.parametrize(
    ("devices", "gpus", "level"),
    [(1, 0, "ok"), (2, 0, "ok"), (9, 0, "warning"), (1, 2, "ok"), (2, 2, "ok"), (3, 2, "problem")],
)
def test_too_many_devices_are_a_problem_on_gpus_and_a_warning_on_a_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, devices: int, gpus: int, level: str
) -> None:
    write_params(folder, raw_dir="raw", weights_dir="weights", devices=devices)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert results()["devices"].level == level


def test_without_pytorch_only_the_models_are_not_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tools.doctor.networks", None)
    monkeypatch.delattr("tools.doctor.networks", raising=False)
    assert list(results())[-2:] == ["disk space", "models"]
    assert problems() == ["models"]
    assert "pip install -r requirements.txt" in results()["models"].message


def test_a_running_training_is_reported(folder: Path) -> None:
    with training_lock(CHECKPOINTS):
        process = CHECKPOINTS.joinpath(".lock").read_text(encoding="ascii")
        assert problems() == ["training"]
        assert f"process {process} is training here" in results()["training"].message
    assert problems() == []


def test_other_versions_are_a_warning_and_build_suffixes_are_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "requirements.txt").write_text("# pinned\n-c constraints.txt\ntorch==2.0.0\ntimm==1.0.0\n")
    (folder / "constraints.txt").write_text("# all\ntimm==1.0.0\ntorch==2.0.0\nsympy==1.0\nabsent==1\n")
    monkeypatch.setattr(machine, "installed", {"torch": "2.0.0+cpu", "timm": "1.0.1", "sympy": "1.1"}.get)
    (check,) = machine.packages()
    assert check.level == "warning"
    assert check.message.startswith("timm 1.0.1 (pinned: 1.0.0), sympy 1.1 (pinned: 1.0): ")
    monkeypatch.setattr(machine, "installed", {"torch": "2.0.0"}.get)
    (check,) = machine.packages()
    assert check.level == "problem"
    assert check.message.startswith("missing: timm; run `make repro`")


def test_the_python_that_dvc_would_run_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert [check.level for check in machine.python()] == ["ok"]
    fake_program(folder, monkeypatch, "python", "exit 1")
    assert [check.level for check in machine.python()] == ["warning"]
    monkeypatch.setenv("PATH", str(folder))
    assert [check.level for check in machine.python()] == ["problem"]


@pytest.mark.parametrize(
    ("version", "platform", "message"),
    [
        ((3, 10, 9), "linux", "Python 3.10.9: the pinned packages exist for Python 3.11 to 3.14"),
        ((3, 15, 0), "darwin", "Python 3.15.0: the pinned packages exist"),
        ((3, 12, 0), "win32", "Windows is supported in the Windows Subsystem for Linux alone"),
        ((3, 11, 0), "linux", None),
        ((3, 14, 2), "darwin", None),
    ],
)
def test_the_versions_of_python_and_the_platforms_that_are_supported(
    version: tuple[int, ...], platform: str, message: str | None
) -> None:
    found = supported.unsupported(version, platform)
    assert found is None if message is None else str(found).startswith(message)


@pytest.mark.parametrize("args", [("-m", "tools.doctor"), ("-m", "tools.doctor.supported")])
def test_an_unsupported_python_ends_with_one_line(tmp_path: Path, args: tuple[str, str]) -> None:
    # -S disables site-packages.
    program = f"import runpy, sys; sys.version_info = (3, 9, 1); runpy.run_module({args[1]!r}, run_name='__main__')"
    done = run_python(tmp_path, "-S", "-c", program)
    assert done.returncode == 1
    assert not done.stdout
    assert re.fullmatch(r"error: Python 3\.9\.1: .*PYTHON=python3\.11`\n", done.stderr)


def test_make_checks_the_version_before_it_creates_an_environment(tmp_path: Path) -> None:
    python = tmp_path / "old"
    python.write_text(
        f'#!/bin/sh\n[ $1 = -m ] && exec {sys.executable} -c "import runpy, sys; sys.version_info = (3, 9, 1)\n'
        "runpy.run_module('$2', run_name='__main__')\"\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["make", "repro", f"PYTHON={python}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: Python 3.9.1: the pinned packages exist for Python 3.11 to 3.14")
    assert not (tmp_path / ".venv").exists()


def test_a_gpu_is_reported_with_memory_and_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(folder, monkeypatch, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB, 570.1'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (check,) = machine.gpu()
    assert check.level == "warning"
    assert "PyTorch cannot use it" in check.message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert list(machine.gpu()) == [Check("ok", "GPU", "NVIDIA H100, 81559 MiB, driver 570.1, CUDA 13.0")]


def test_a_driver_that_fails_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(folder, monkeypatch, "nvidia-smi", "exit 9")
    (check,) = machine.gpu()
    assert check.level == "warning"


@pytest.mark.parametrize(
    ("line", "level", "expected"),
    [
        ("Cache types: hardlink, symlink", "ok", "outputs by hardlink"),
        ("Cache types: ", "warning", "outputs by copy"),
        ("Cache types: <https://error.dvc.org/no-dvc-cache>", "ok", "known after"),
        ("Platform: one", "problem", "not a DVC repository"),
    ],
)
def test_the_first_wanted_type_of_link_that_is_supported_is_used(
    monkeypatch: pytest.MonkeyPatch, line: str, level: str, expected: str
) -> None:
    outputs = {"doctor": f"DVC version: 3\n{line}\nCaches: local", "config": "reflink,hardlink,symlink,copy"}
    monkeypatch.setattr(machine, "output_of", lambda *args: outputs[args[3]])
    (check,) = machine.dvc()
    assert check.level == level
    assert expected in check.message


def test_a_batch_that_does_not_fit_the_gpu_is_a_warning_with_one_that_does() -> None:
    estimate = MemoryEstimate(fixed=2e9, per_image=1e8)
    assert networks.compare_memory("net", estimate, 100, memory=12e9).level == "ok"
    too_large = networks.compare_memory("net", estimate, 101, memory=12e9)
    assert too_large.level == "warning"
    assert too_large.message == "net: about 12.1 GB, but the GPU has 12.0 GB: lower batch_size to 100 for each GPU"
    assert networks.compare_memory("net", estimate, 101, memory=math.inf).level == "ok"


def test_memory_is_estimated_for_the_batch_of_each_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "estimate_memory", lambda model, _: MemoryEstimate(1e9, 1e8 if model == "b" else 1e7))
    params = read_params(Params).model_copy(update={"models": ["a", "b"], "batch_size": 19, "devices": 2})
    check = networks.check_memory(params.model_copy(update={"image_size": 1000}))
    # 1 GB, 10 images of 0.1 GB each, and the 1,200 images of the sample.
    assert check.message == "b, 10 images on each GPU: about 3.2 GB on a machine with a GPU"


def test_a_model_that_cannot_be_built_at_this_size_is_a_problem(folder: Path) -> None:
    params = read_params(Params).model_copy(update={"models": ["inception_v3"], "image_size": 32})
    check = networks.check_memory(params)
    assert check.level == "problem"
    assert "timm cannot build inception_v3 with 1 channels at 32 px" in check.message
