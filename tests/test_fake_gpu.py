"""The CUDA code, on a fake GPU that computes nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.fake_gpu.build import NO_MEMORY_CACHE, build, missing_requirement
from tests.fixtures.planted import write_planted, write_planted_params
from tests.fixtures.project import ROOT


@pytest.fixture(scope="module")
def fake_gpu() -> dict[str, str]:
    """The environment of a process that sees the fake GPU."""
    if reason := missing_requirement():
        pytest.skip(f"no fake GPU: {reason}")
    return os.environ | {"PYTHONPATH": str(ROOT)} | build()


def start_stage(name: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"stages.{name}"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment | NO_MEMORY_CACHE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def output_of(stage: subprocess.Popen[str]) -> str:
    out, err = stage.communicate(timeout=200)
    assert stage.returncode == 0, out + err
    return out


def test_all_checks_pass(fake_gpu: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/fake_gpu/checks.py"]
    done = subprocess.run(command, cwd=ROOT, env=fake_gpu, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_train_resumes_after_a_kill_and_evaluate_follows(fake_gpu: dict[str, str], tmp_path: Path) -> None:
    write_planted(tmp_path)
    write_planted_params(tmp_path, epochs=3, bootstrap_samples=100)
    image = pd.read_csv(tmp_path / "data/split.csv").query("split == 'test'")["image"].iloc[0]
    box = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{image},Mass,100,100,300,300\n"
    (tmp_path / "BBox_List_2017.csv").write_text(box, encoding="utf-8")
    killed = start_stage("train", tmp_path, fake_gpu)
    assert killed.stdout is not None
    assert "144 images on cuda (fake H100), from epoch 1" in killed.stdout.readline()
    assert "epoch   1 of 3" in killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed = output_of(start_stage("train", tmp_path, fake_gpu))
    assert "from epoch 1" not in resumed
    assert "epoch   3 of 3" in resumed
    assert pd.read_csv(tmp_path / "data/curves.csv")["epoch"].tolist() == [1, 2, 3]
    assert "test images" in output_of(start_stage("evaluate", tmp_path, fake_gpu))
    assert set(json.loads((tmp_path / "metrics/localisation.json").read_text())["classes"]) == {"Mass"}
