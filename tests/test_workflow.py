"""The GitHub workflow: scripts, pinned actions, permissions, and the comment script with a fake `gh`."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.project import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORKFLOW = ROOT / ".github/workflows/pull-request.yml"


def parsed(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in parsed(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_runs_an_executable_script(path: Path) -> None:
    scripts = [step["run"].split()[0] for step in steps(path) if "run" in step]
    assert scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
        subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_no_expression_is_expanded_in_a_command(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_only_the_job_without_code_of_the_pull_request_may_write() -> None:
    content = parsed(WORKFLOW)
    # YAML 1.1 parses the key `on` as true.
    assert content[True] == "pull_request", "pull_request_target gives forks a write token"
    assert content["permissions"] == {}
    jobs = content["jobs"]
    assert jobs["check"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    (checkout,) = [step for step in jobs["comment"]["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    with_token = [step for job in jobs.values() for step in job["steps"] if "GH_TOKEN" in step.get("env", {})]
    assert [step["run"].split()[0] for step in with_token] == [".ci/comment"]


def test_a_failed_comparison_fails_the_step() -> None:
    """The comparison is piped to tee: without pipefail its exit status is lost."""
    content = parsed(WORKFLOW)
    assert content["defaults"]["run"]["shell"] == "bash", "GitHub adds -eo pipefail to this name only"
    assert content["jobs"]["check"]["steps"][0]["with"]["fetch-depth"] == 2, "HEAD^1 is the base"


def write_program(folder: Path, name: str, text: str) -> None:
    """Write an executable bash script."""
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def run_with(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command with the programs in `folder` first on the path."""
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "someone/cxr"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("earlier", ["", "https://api.example.org/repos/someone/cxr/issues/comments/55"])
def test_a_comment_replaces_the_earlier_one(tmp_path: Path, earlier: str) -> None:
    (tmp_path / "comment.md").write_text('### "Changes"\n\n$(rm -rf /) `x`\n', encoding="utf-8")
    write_program(
        tmp_path, "gh", f'echo "$@" >> calls; case "$*" in *--paginate*) echo "{earlier}";; *) cat > body;; esac'
    )
    done = run_with(tmp_path, ROOT / ".ci/comment", "7", "comment.md")
    assert done.returncode == 0, done.stderr
    listing, writing = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert "repos/someone/cxr/issues/7/comments" in listing
    target = f"--method PATCH {earlier}" if earlier else "--method POST repos/someone/cxr/issues/7/comments"
    assert writing == f"api --silent {target} --field body=@-"
    mark, _, rest = (tmp_path / "body").read_text(encoding="utf-8").partition("\n")
    assert rest == (tmp_path / "comment.md").read_text(encoding="utf-8")
    assert f'startswith(\\"{mark}\\")' in (ROOT / ".ci/comment").read_text(encoding="utf-8").replace("$mark", mark)


def test_comment_fails_if_github_refuses(tmp_path: Path) -> None:
    (tmp_path / "comment.md").write_text("text\n", encoding="utf-8")
    write_program(tmp_path, "gh", "echo refused >&2; exit 1")
    done = run_with(tmp_path, ROOT / ".ci/comment", "7", "comment.md")
    assert done.returncode != 0
    assert "refused" in done.stderr


def test_the_comparison_runs_in_the_environment_that_make_creates(tmp_path: Path) -> None:
    for folder in (".ci", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/compare", tmp_path / ".ci/compare")
    write_program(tmp_path / "bin", "make", 'echo "made $@"')
    write_program(tmp_path / ".venv/bin", "python", 'echo "$PWD: $@"')
    done = run_with(tmp_path / "bin", tmp_path / ".ci/compare", "HEAD^1", "HEAD")
    assert done.stdout == f"{tmp_path}: -m tools.pull_request HEAD^1 HEAD\n"
    assert done.stderr == "made .venv/stages\n"
