"""Check whether this machine rebuilds the committed results, byte for byte.

Clones the last commit into a temporary folder, runs `dvc repro` there with the installed packages, and compares every
output with the commit's `dvc.lock`. Outputs that differ are listed with what may be the cause: another processor,
another version of a package, a setting. Nothing in the workspace is changed. The exit code is 1 if an output differs.
"""

import cxr.core.cpu  # noqa: F401 (its settings are passed to the stages)

# isort: split
import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from cxr.core import cpu
from cxr.core.errors import InputError, run_as_script, warn
from tools.doctor import machine

EXAMPLES = """example:
  python -m tools.verify
"""
LOCK = "dvc.lock"
ANOTHER_PROCESSOR = (
    "results repeat on x86-64 processors with AVX2: elsewhere the last bits differ, and metrics by as much as with "
    "another seed"
)


class Output(NamedTuple):
    """An output of a stage, with its MD5 hashes in DVC's form."""

    stage: str
    path: str
    locked: str
    rebuilt: str | None  # None if it is missing

    def __str__(self) -> str:
        """Return the output as a line of the table."""
        result = "same" if self.locked == self.rebuilt else f"differs: {self.rebuilt or 'missing'}"
        return f"{self.stage:<9} {self.path:<30} {self.locked:<36} {result}"


def main() -> None:
    """Rebuild the last commit, print the table, and exit with 1 if anything differs."""
    argparse.ArgumentParser(
        "python -m tools.verify",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    locked = hashes(git(Path.cwd(), "show", f"HEAD:./{LOCK}"))
    if git(Path.cwd(), "status", "--porcelain"):
        warn("the workspace has changes that are not committed: only the last commit is verified")
    for cause in causes():
        print(f"note: {cause}")
    with TemporaryDirectory(prefix="verify-") as folder:
        clone = clone_workspace(Path(folder) / "clone")
        problems = list(committed_differences(clone))
        dvc(clone, "repro")
        rebuilt = hashes((clone / LOCK).read_text(encoding="utf-8"))
        outputs = [Output(*key, value, rebuilt.get(key)) for key, value in locked.items()]
        problems += [f"{one.path} differs" for one in outputs if one.locked != one.rebuilt]
        files = git(clone, "status", "--porcelain").splitlines()
    print(f"\n{'stage':<9} {'output':<30} {f'MD5 in {LOCK}':<36} rebuilt", *outputs, sep="\n")
    if problems:
        report(problems, [line[3:] for line in files])
    print(f"\nall {len(outputs)} outputs have the bytes of {LOCK}")


def report(problems: list[str], files: list[str]) -> None:
    """Print what differs and why it may, and exit with 1."""
    print(f"\nThis machine does not rebuild the committed results: {'; '.join(problems)}.")
    if files:
        print(f"Files in git that the run changed: {', '.join(files)}")
    found = list(causes()) or [f"no known cause; this machine: {describe_machine()}"]
    print("Possible causes:", *found, sep="\n- ")
    sys.exit(1)


def clone_workspace(clone: Path) -> Path:
    """Clone the repository, and link dependencies that are neither in git nor outputs, such as real images."""
    git(Path.cwd(), "clone", "--quiet", "--no-hardlinks", ".", str(clone))
    lock = yaml.safe_load((clone / LOCK).read_text(encoding="utf-8"))
    outputs = {path for _, path in hashes((clone / LOCK).read_text(encoding="utf-8"))}
    for stage in lock["stages"].values():
        for path in {one["path"] for one in stage.get("deps", [])} - outputs:
            if not (clone / path).exists() and Path(path).exists():
                (clone / path).parent.mkdir(parents=True, exist_ok=True)
                (clone / path).symlink_to(Path(path).resolve())
    return clone


def hashes(lock: str) -> dict[tuple[str, str], str]:
    """Return the MD5 hash of each output in the text of a `dvc.lock`, by stage and path."""
    stages: dict[str, Any] = yaml.safe_load(lock)["stages"]
    return {(name, out["path"]): out["md5"] for name, stage in stages.items() for out in stage.get("outs", [])}


def committed_differences(clone: Path) -> Iterator[str]:
    """Yield what in a fresh clone does not match its `dvc.lock`: code, parameters, or outputs that are in git."""
    status: dict[str, list[Any]] = json.loads(dvc(clone, "status", "--json", capture=True))
    for stage, changes in status.items():
        for change in changes:
            for kind, paths in change.items() if isinstance(change, dict) else ():
                # Outputs that are not in git are missing in a clone, so their stages are listed with "deleted" only.
                names = [path for path, state in paths.items() if state not in ("deleted", "not in cache")]
                if names:
                    yield f"{stage}: {LOCK} has another hash of {', '.join(names)} than the commit ({kind})"


def causes() -> Iterator[str]:
    """Yield what may make results differ on this machine."""
    if not cpu.has_avx2():
        yield f"this processor is {platform.machine()} without AVX2; {ANOTHER_PROCESSOR}"
    elif not cpu.is_portable():
        yield "CXR_PORTABLE is 0: libraries choose their code by the processor"
    else:
        for name, wanted in {**cpu.PORTABLE, **cpu.ALWAYS}.items():
            if os.environ[name] != wanted:
                yield f"the environment variable {name} is {os.environ[name]} instead of {wanted}"
    for name, pinned in machine.pins(machine.CONSTRAINTS).items():
        has = machine.installed(name)
        if has is not None and machine.differs(has, pinned):
            yield f"{name} is {has} instead of {pinned}: `pip install -r requirements.txt`"
    if version := machine.cuda_version():
        yield f"the networks are trained on a GPU (CUDA {version}): results repeat on GPUs of the same model only"


def describe_machine() -> str:
    """Return the versions of Python and the C library, and the processor's architecture."""
    return f"Python {platform.python_version()}, {' '.join(platform.libc_ver())}, {platform.machine()}"


def git(folder: Path, *arguments: str) -> str:
    """Return the output of git in `folder`; raise InputError with its message if it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise InputError(
            f"git {arguments[0]}: {done.stderr.strip()}; run from the top of a clone with a committed {LOCK}"
        )
    return done.stdout


def dvc(clone: Path, *arguments: str, capture: bool = False) -> str:
    """Run DVC in the clone with this Python, and return its output if it is captured.

    Raises:
        InputError: if DVC fails; it has printed the reason.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(  # noqa: S603 (our own arguments)
        command,
        cwd=clone,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"`dvc {arguments[0]}` failed in a fresh clone of the last commit; its message is above")
    return done.stdout or ""


if __name__ == "__main__":
    run_as_script(main)
