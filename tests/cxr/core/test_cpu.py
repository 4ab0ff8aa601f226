import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.core import cpu
from tests.fixtures.project import ROOT

STAGES = sorted((ROOT / "stages").glob("[a-z]*.py"))
PROGRAMS = [*STAGES, *(ROOT / f"tools/{name}/__main__.py" for name in ("app", "export", "phantom", "predict"))]
UNSET = {name: value for name, value in os.environ.items() if name not in {*cpu.PORTABLE, *cpu.ALWAYS, "CXR_PORTABLE"}}
avx2 = pytest.mark.skipif(not cpu.has_avx2(), reason="this processor has no AVX2")


def run_python(program: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@avx2
def test_the_settings_are_made_before_any_library_loads() -> None:
    program = "import os, sys, cxr.core.cpu as c; print(c.settings() == {**c.PORTABLE, **c.ALWAYS}, *sys.modules)"
    done, *modules = run_python(program, UNSET).split()
    assert done == "True"
    assert not {"numpy", "torch", "pandas", "sklearn"} & set(modules)


def test_a_variable_that_the_user_set_is_kept() -> None:
    program = "import os, cxr.core.cpu; print(os.environ['OMP_WAIT_POLICY'])"
    assert run_python(program, {**UNSET, "OMP_WAIT_POLICY": "ACTIVE"}) == "ACTIVE"


def test_portable_arithmetic_can_be_turned_off() -> None:
    program = "import os, cxr.core.cpu as c; print(*(os.environ.get(n) for n in (*c.PORTABLE, 'OMP_WAIT_POLICY')))"
    assert run_python(program, {**UNSET, "CXR_PORTABLE": "0"}).split() == ["None"] * len(cpu.PORTABLE) + ["PASSIVE"]


def test_a_processor_without_avx2_keeps_the_choice_of_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    assert not cpu.has_avx2()
    assert not cpu.is_portable()


@avx2
def test_the_libraries_follow_the_settings() -> None:
    program = """
import cxr.core.cpu
import numpy, torch
from numpy._core._multiarray_umath import __cpu_features__ as features
from threadpoolctl import threadpool_info
import scipy.linalg
blas = [library for library in threadpool_info() if library["internal_api"] == "openblas"]
print(torch.backends.cpu.get_cpu_capability(), features["X86_V4"], features["X86_V3"])
print(len(blas), *{(library["architecture"], library["num_threads"]) for library in blas})
"""
    assert run_python(program, UNSET) == "AVX2 False True\n2 ('Haswell', 1)"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_that_compute_import_the_settings_first(program: Path) -> None:
    tree = ast.parse(program.read_text(encoding="utf-8"))
    first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.Import)
    assert [alias.name for alias in first.names] == ["cxr.core.cpu"]
