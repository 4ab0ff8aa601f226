import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.project import ROOT

SCRIPTS = ("stages/train.py", "stages/evaluate.py")


def print_policy(environment: dict[str, str]) -> str:
    program = "import os, sys, cxr.core.threads; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_idle_threads_sleep_unless_the_user_chose_otherwise() -> None:
    unset = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    assert print_policy(unset) == "PASSIVE False"
    assert print_policy({**unset, "OMP_WAIT_POLICY": "ACTIVE"}) == "ACTIVE False"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_first_import_of_a_stage_that_uses_pytorch_is_threads(script: str) -> None:
    tree = ast.parse(Path(ROOT / script).read_text(encoding="utf-8"))
    first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.Import)
    assert [alias.name for alias in first.names] == ["cxr.core.threads"]
