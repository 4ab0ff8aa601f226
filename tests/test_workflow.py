"""GitHub's workflow, as far as it can be tried without GitHub: what it names, may do and runs."""

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
def test_every_step_runs_a_script_that_is_there_and_may_be_run(path: Path) -> None:
    scripts = [step["run"].split()[0] for step in steps(path) if "run" in step]
    assert scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
        subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_no_text_of_a_stranger_becomes_a_command(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_only_the_job_that_runs_none_of_the_pull_requests_code_may_write() -> None:
    content = parsed(WORKFLOW)
    # YAML 1.1 reads the key `on` as true.
    assert content[True] == "pull_request", "never pull_request_target: it hands a token that may write to a fork"
    assert content["permissions"] == {}
    jobs = content["jobs"]
    assert jobs["check"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    (checkout,) = [step for step in jobs["comment"]["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    with_token = [step for job in jobs.values() for step in job["steps"] if "GH_TOKEN" in step.get("env", {})]
    assert [step["run"].split()[0] for step in with_token] == [".ci/comment"]


def test_a_comparison_that_fails_fails_the_step() -> None:
    """Its output goes through a pipe, whose end alone counts without pipefail."""
    content = parsed(WORKFLOW)
    assert content["defaults"]["run"]["shell"] == "bash", "GitHub adds -eo pipefail to this name, and to no other"
    assert content["jobs"]["check"]["steps"][0]["with"]["fetch-depth"] == 2, "HEAD^1 is the base"


def play(folder: Path, name: str, text: str) -> None:
    """A program of this name, first on the path where `folder` is."""
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def played(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "someone/cxr"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("earlier", ["", "https://api.example.org/repos/someone/cxr/issues/comments/55"])
def test_a_comment_takes_the_place_of_the_earlier_one(tmp_path: Path, earlier: str) -> None:
    (tmp_path / "comment.md").write_text('### What "changes"\n\n$(rm -rf /) `x`\n', encoding="utf-8")
    play(tmp_path, "gh", f'echo "$@" >> calls; case "$*" in *--paginate*) echo "{earlier}";; *) cat > body;; esac')
    done = played(tmp_path, ROOT / ".ci/comment", "7", "comment.md")
    assert done.returncode == 0, done.stderr
    listing, writing = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert "repos/someone/cxr/issues/7/comments" in listing
    target = f"--method PATCH {earlier}" if earlier else "--method POST repos/someone/cxr/issues/7/comments"
    assert writing == f"api --silent {target} --field body=@-"
    mark, _, rest = (tmp_path / "body").read_text(encoding="utf-8").partition("\n")
    assert rest == (tmp_path / "comment.md").read_text(encoding="utf-8")
    assert f'startswith(\\"{mark}\\")' in (ROOT / ".ci/comment").read_text(encoding="utf-8").replace("$mark", mark)


def test_where_github_refuses_it_fails(tmp_path: Path) -> None:
    (tmp_path / "comment.md").write_text("text\n", encoding="utf-8")
    play(tmp_path, "gh", "echo refused >&2; exit 1")
    done = played(tmp_path, ROOT / ".ci/comment", "7", "comment.md")
    assert done.returncode != 0
    assert "refused" in done.stderr


def test_the_comparison_is_run_in_the_environment_that_make_made(tmp_path: Path) -> None:
    for folder in (".ci", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/compare", tmp_path / ".ci/compare")
    play(tmp_path / "bin", "make", 'echo "made $@"')
    play(tmp_path / ".venv/bin", "python", 'echo "$PWD: $@"')
    done = played(tmp_path / "bin", tmp_path / ".ci/compare", "HEAD^1", "HEAD")
    assert done.stdout == f"{tmp_path}: -m tools.pull_request HEAD^1 HEAD\n"
    assert done.stderr == "made .venv/stages\n"
