"""Describe the changes of a branch in Markdown, as a comment on its pull request.

    python -m tools.pull_request main my-branch > comment.md
    python -m tools.pull_request                                HEAD compared with the commit before it

The comment states whether `dvc.lock` matches the branch's code, which parameters and metrics differ, and whether the
difference in AUROC is significant (`python -m tools.compare`). The branch is compared with its merge base, so later
commits on the base are ignored. Only committed files are compared; nothing is trained and no file in the workspace is
changed. Predictions are read from the DVC cache or a remote.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cxr.core.errors import InputError, run_as_script
from tools.compare import BOOTSTRAP_SAMPLES, compare, conclusion, print_comparison
from tools.revisions import read_test_set, shared_images

MAX_ROWS = 12  # longer tables are collapsed
# States of missing files in `dvc status`; these are ignored, since the commit is checked out without data.
MISSING = ("deleted", "not in cache")


def comment(base: str, head: str) -> str:
    """Return the comment on the changes of `head` since its merge base with `base`; both are names of commits.

    Raises:
        InputError: if a commit does not exist, the commits share no history, or DVC cannot read one of them.
    """
    new, old = short_hash(head), merge_base(base, head)
    parts = [
        f"### Changes of {new} compared with {old}",
        lock_status(stale_stages(new)),
        table_section("parameters", _dvc("params", "diff", "--md", old, new)),
        table_section("metrics", _dvc("metrics", "diff", "--md", old, new)),
        auroc_section(old, new),
    ]
    return "\n\n".join(parts)


def short_hash(name: str) -> str:
    """Return the short hash of a commit.

    Raises:
        InputError: if there is no such commit.
    """
    try:
        return _git("rev-parse", "--short", f"{name}^{{commit}}")
    except InputError as error:
        raise InputError(
            f"{name} is not a commit of this clone; run `git fetch`, or check the name ({error})"
        ) from None


def merge_base(base: str, head: str) -> str:
    """Return the short hash of the last commit that both have in common.

    Raises:
        InputError: if there is no such commit.
    """
    commits = short_hash(base), short_hash(head)
    try:
        ancestor = _git("merge-base", *commits)
    except InputError:
        raise InputError(
            f"{base} and {head} have no common commit in this clone; run `git fetch --unshallow`"
        ) from None
    return short_hash(ancestor)


def stale_stages(commit: str) -> dict[str, list[str]]:
    """Return the code, parameters, command and inputs that differ from `dvc.lock`, for each stage that has any.

    The commit is checked out without data, so data files are compared within `dvc.lock` only.
    """
    with _checkout(commit) as folder:
        status, lock = json.loads(_dvc("status", "--json", at=folder)), folder / "dvc.lock"
        locked = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    stale = {stage: list(_changes(entries)) for stage, entries in status.items()}
    for stage, inputs in mismatched_inputs(locked).items():
        stale[stage] = [*stale.get(stage, []), *inputs]
    return {stage: changes for stage, changes in stale.items() if changes}


def mismatched_inputs(stages: dict[str, Any]) -> dict[str, list[str]]:
    """Return each stage's inputs whose hash differs from that of the stage that writes them, as after a bad merge.

    `stages` are those of a `dvc.lock`.
    """
    written = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    return {
        name: [dep["path"] for dep in stage.get("deps", []) if written.get(dep["path"], dep["md5"]) != dep["md5"]]
        for name, stage in stages.items()
    }


def _changes(entries: list[Any]) -> Iterator[str]:
    """Yield the names of changed files and parameters, from one stage's part of `dvc status --json`."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry.removeprefix("changed ")
            continue
        for changed in entry.values():
            for path, state in changed.items():
                if isinstance(state, dict):
                    yield from state
                elif state not in MISSING:
                    yield path


def lock_status(stale: dict[str, list[str]]) -> str:
    """Return whether `dvc.lock` matches the code, and what to do if it does not."""
    if not stale:
        return "`dvc.lock` matches the code and parameters."
    rows = [f"- {stage}: {', '.join(f'`{change}`' for change in changes)}" for stage, changes in stale.items()]
    warning = (
        "**`dvc.lock` is out of date: run `dvc repro` and commit the results.** The metrics below are from different "
        "code or parameters. Changed since the last run:"
    )
    return "\n".join([warning, "", *rows])


def table_section(title: str, table: str) -> str:
    """Return a Markdown table under its title, collapsed if it is long."""
    rows = max(len(table.strip().splitlines()) - 2, 0)
    if not rows:
        return f"No {title} differ."
    if rows <= MAX_ROWS:
        return f"**{title.capitalize()}**\n\n{table.strip()}"
    return details(f"{title.capitalize()}: {rows} differ", table.strip())


def details(summary: str, content: str) -> str:
    """Return Markdown that shows `content` when `summary` is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def auroc_section(old: str, new: str) -> str:
    """Return the conclusion of `tools.compare` with its table collapsed, or the reason why there is none."""
    printed = StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            base, branch = replace(read_test_set(old), name="base"), replace(read_test_set(new), name="branch")
            a, b = shared_images(base, branch)
            comparison = compare(a, b, BOOTSTRAP_SAMPLES)
            print_comparison(comparison, a, b)
    except InputError as error:
        reason = str(error).partition("\n")[0]
        return f"AUROC not compared: {reason}. Run `dvc push` on the machine that has the predictions."
    text = conclusion(comparison, a, b)
    table = details("AUROC by class", f"```\n{printed.getvalue().strip()}\n```")
    return f"**{text[0].upper()}{text[1:]}**\n\n{table}"


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        "python -m tools.pull_request", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", nargs="?", default="HEAD~1", metavar="BASE", help="the target branch (default: HEAD~1)")
    parser.add_argument(
        "head", nargs="?", default="HEAD", metavar="HEAD", help="the branch to describe (default: HEAD)"
    )
    return parser


def main() -> None:
    """Print the comment."""
    args = command_line().parse_args()
    print(comment(args.base, args.head))


@contextmanager
def _checkout(commit: str) -> Iterator[Path]:
    """Check out a commit in a temporary git worktree and yield its folder."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "checkout"
        # Without hooks, since DVC's post-checkout hook fetches data.
        _git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> str:
    return _output("git", *arguments).strip()


def _dvc(*arguments: str, at: Path = Path()) -> str:
    return _output(sys.executable, "-m", "dvc", *arguments, at=at)


def _output(*command: str, at: Path = Path()) -> str:
    """Return the standard output of a command.

    Raises:
        InputError: with its standard error, if it fails.
    """
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)  # noqa: S603 (no untrusted input)
    if done.returncode:
        shown = " ".join(Path(part).name if part == sys.executable else part for part in command)
        raise InputError(f"{shown}: {done.stderr.strip() or 'failed'}")
    return done.stdout


if __name__ == "__main__":
    run_as_script(main)
