"""What the tests know of the project's own files."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("sample", "split", "resize", "train", "evaluate")


def imported_files(path: Path) -> set[Path]:
    """The project's own files that the file at `path` imports, directly or not, and itself."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += direct_imports(file)
    return found


def run(folder: Path, *command: str) -> str:
    """What `command` prints in `folder`; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start_training(folder: Path) -> subprocess.Popen[str]:
    """`python -m stages.train` in `folder`, running."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.train"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def copy_project(folder: Path) -> Path:
    """Commit the working tree's tracked and new files as a repository of its own in `folder`."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: DVC's commands cannot be tried")
    names = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    run(folder, "git", "init", "--quiet")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        run(folder, "git", "config", key, value)
    commit(folder, "Start")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit all that git does not ignore in `folder`."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def direct_imports(file: Path) -> list[Path]:
    """The project's own files that the file imports itself, with the `__init__.py` of each package around them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return [path for name in names for path in _files_of(name)]


def _files_of(module: str) -> list[Path]:
    """The module's file and the `__init__.py` of each package around it, where they are this project's."""
    parts = module.split(".")
    packages = [ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [path for path in (*packages, ROOT.joinpath(*parts).with_suffix(".py")) if path.is_file()]
