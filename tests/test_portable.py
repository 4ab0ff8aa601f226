"""The stages at toy size on emulated processors and in other environments: all outputs must have the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.core import cpu
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in, write_params

STAGES = ("sample", "split", "resize", "train", "evaluate")
# Intel and AMD, none with AVX-512: QEMU emulates no more than AVX2.
PROCESSORS = ("Haswell", "EPYC-Rome", "Skylake-Client")
# QEMU 7.2 computes gather instructions wrongly. NumPy with AVX2 sorts with them, and PyTorch's grid_sample uses them.
WITHOUT_GATHER = {"NPY_DISABLE_CPU_FEATURES": f"X86_V3 {cpu.PORTABLE['NPY_DISABLE_CPU_FEATURES']}"}
WITHOUT_GRID_SAMPLE = {"augment.hflip": 0, "augment.degrees": 0, "augment.translate": 0, "augment.scale": 0}

pytestmark = pytest.mark.skipif(not cpu.has_avx2(), reason="this processor has no AVX2")


def run_stages(folder: Path, stages: tuple[str, ...], *emulator: str, **environment: str) -> dict[str, str]:
    """Run the stages at toy size in `folder`, and return the SHA-256 of each output."""
    toy = {"sample.size": 150, "image_size": 32, "models": ["test_resnet"], "epochs": 2, "T_0": 2}
    write_params(folder, **toy, bootstrap_samples=100, **WITHOUT_GRID_SAMPLE)
    (folder / "data").mkdir()
    (folder / "data/demo").symlink_to(ROOT / "data/demo")
    for stage in stages:
        command = [*emulator, sys.executable, "-m", f"stages.{stage}"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    names = {name for name in files_in(folder) if name.startswith(("data/", "metrics/", "plots/"))}
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names - {"data/demo"}}


def emulator(processor: str) -> tuple[str, ...]:
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is missing (Debian: qemu-user)")
    return "qemu-x86_64", "-cpu", processor


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_stages(tmp_path_factory.mktemp("native"), STAGES)


def test_an_emulated_processor_samples_and_splits_the_same(tmp_path: Path) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "emulated").mkdir()
    outputs = run_stages(tmp_path / "emulated", STAGES[:2], *emulator("Haswell"), **WITHOUT_GATHER)
    assert set(outputs) == {"data/sample.csv", "data/official.csv", "data/split.csv"}
    assert run_stages(tmp_path / "native", STAGES[:2]) == outputs


@pytest.mark.accept
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_emulated_processor_gives_the_same_outputs(tmp_path: Path, native: dict[str, str], processor: str) -> None:
    assert len(native) > 50
    assert run_stages(tmp_path, STAGES, *emulator(processor), **WITHOUT_GATHER) == native


@pytest.mark.accept
@pytest.mark.parametrize(
    "environment",
    [
        {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1", "HOME": "/nonexistent", "USER": "another"},
        {"TZ": "America/New_York", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "8"},
    ],
    ids=["one core", "eight threads"],
)
def test_cores_locale_time_zone_and_path_do_not_matter(
    tmp_path: Path, native: dict[str, str], environment: dict[str, str]
) -> None:
    folder = tmp_path / "a path with spaces"
    folder.mkdir()
    one_core = ("taskset", "--cpu-list", "0") if "OMP_NUM_THREADS" not in environment else ()
    assert run_stages(folder, STAGES, *one_core, **environment) == native
