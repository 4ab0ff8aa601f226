"""Say in Markdown what a branch changes: the comment on its pull request.

    python -m tools.pull_request main my-branch > comment.md
    python -m tools.pull_request                                HEAD, beside the commit before it

Tells whether `dvc.lock` is of the branch's code, which parameters and metrics differ, and whether the difference of the
AUROC is more than noise (`python -m tools.compare`). The branch is compared with the commit where it left its base, so
that what others did on the base meanwhile is not laid to it. Only what is committed counts, nothing is trained and no
file of yours is touched; the predictions come from DVC's cache or a remote.
"""

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
from tools.compare import RESAMPLES, compare, report, sentence
from tools.revisions import read_test_set, share

FOLDED = 12  # rows: a longer table is folded
# What is merely not here, in a copy without data, says nothing of the code.
ABSENT = ("deleted", "not in cache")


def comment(base: str, head: str) -> str:
    """The comment on what `head` changes since it left `base`; both are names of commits.

    Raises:
        InputError: where there is no such commit, they share no history, or DVC cannot read one of them.
    """
    new, old = short(head), fork(base, head)
    parts = [
        f"### What {new} changes, beside {old}",
        lock_remark(stale_stages(new)),
        folded("parameters", _dvc("params", "diff", "--md", old, new)),
        folded("metrics", _dvc("metrics", "diff", "--md", old, new)),
        more_than_noise(old, new),
    ]
    return "\n\n".join(parts)


def short(name: str) -> str:
    """The short hash of the commit that has this name; InputError where there is none."""
    try:
        return _git("rev-parse", "--short", f"{name}^{{commit}}")
    except InputError as error:
        raise InputError(f"{name} is no commit that git knows here; `git fetch`, or name another ({error})") from None


def fork(base: str, head: str) -> str:
    """The short hash of the last commit that both have in common; InputError where there is none."""
    commits = short(base), short(head)
    try:
        ancestor = _git("merge-base", *commits)
    except InputError:
        raise InputError(f"{base} and {head} have no commit in common here; try `git fetch --unshallow`") from None
    return short(ancestor)


def stale_stages(commit: str) -> dict[str, list[str]]:
    """Of each stage of a commit, the code, parameters, command and inputs that are not as its `dvc.lock` has them.

    Stages where all is are left out. A copy without data is looked at: whether data fit, `dvc.lock` alone says.
    """
    with _copy_of(commit) as folder:
        status, lock = json.loads(_dvc("status", "--json", at=folder)), folder / "dvc.lock"
        locked = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    found = {stage: list(_changes(entries)) for stage, entries in status.items()}
    for stage, inputs in other_inputs(locked).items():
        found[stage] = [*found.get(stage, []), *inputs]
    return {stage: changes for stage, changes in found.items() if changes}


def other_inputs(stages: dict[str, Any]) -> dict[str, list[str]]:
    """Of each of the `stages` of a `dvc.lock`, the inputs that are not what another of them wrote, as after a merge."""
    written = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    return {
        name: [dep["path"] for dep in stage.get("deps", []) if written.get(dep["path"], dep["md5"]) != dep["md5"]]
        for name, stage in stages.items()
    }


def _changes(entries: list[Any]) -> Iterator[str]:
    """The names in one stage's part of `dvc status --json`."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry.removeprefix("changed ")
            continue
        for changed in entry.values():
            for path, how in changed.items():
                if isinstance(how, dict):
                    yield from how
                elif how not in ABSENT:
                    yield path


def lock_remark(stale: dict[str, list[str]]) -> str:
    """Whether `dvc.lock` is of the code, and what to do where it is not."""
    if not stale:
        return "`dvc.lock` is of this code."
    rows = [f"- {stage}: {', '.join(f'`{change}`' for change in changes)}" for stage, changes in stale.items()]
    warning = (
        "**`dvc.lock` is not of this code: run `dvc repro` and commit what it writes.** The metrics below are of other "
        "code or parameters. Changed since:"
    )
    return "\n".join([warning, "", *rows])


def folded(what: str, table: str) -> str:
    """A Markdown table under its title, folded where it is long."""
    rows = max(len(table.strip().splitlines()) - 2, 0)
    if not rows:
        return f"No {what} differ."
    if rows <= FOLDED:
        return f"**{what.capitalize()}**\n\n{table.strip()}"
    return details(f"{what.capitalize()}: {rows} differ", table.strip())


def details(summary: str, content: str) -> str:
    """Content that shows when its summary is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def more_than_noise(old: str, new: str) -> str:
    """The verdict of `tools.compare` with its table folded, or why there is none."""
    printed = StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            a, b = share(replace(read_test_set(old), name="base"), replace(read_test_set(new), name="branch"))
            comparison = compare(a, b, RESAMPLES)
            report(comparison, a, b)
    except InputError as error:
        reason = str(error).partition("\n")[0]
        return f"Not compared: {reason}. Predictions come from a DVC remote: `dvc push` where they were made."
    verdict = sentence(comparison, a, b)
    table = details("AUROC by class", f"```\n{printed.getvalue().strip()}\n```")
    return f"**{verdict[0].upper()}{verdict[1:]}**\n\n{table}"


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.pull_request", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", nargs="?", default="HEAD~1", metavar="BASE", help="default: HEAD~1")
    parser.add_argument("head", nargs="?", default="HEAD", metavar="HEAD", help="default: HEAD")
    return parser


def main() -> None:
    """Print the comment."""
    asked = command_line().parse_args()
    print(comment(asked.base, asked.head))


@contextmanager
def _copy_of(commit: str) -> Iterator[Path]:
    """A folder with the files that git has of a commit, as a checkout of its own; gone afterwards."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "copy"
        # Without hooks: DVC's own would fetch data.
        _git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> str:
    return _output("git", *words).strip()


def _dvc(*words: str, at: Path = Path()) -> str:
    return _output(sys.executable, "-m", "dvc", *words, at=at)


def _output(*command: str, at: Path = Path()) -> str:
    """What a command prints; InputError with its complaint where it fails."""
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)  # noqa: S603 (our own words)
    if done.returncode:
        words = " ".join(Path(word).name if word == sys.executable else word for word in command)
        raise InputError(f"{words}: {done.stderr.strip() or 'failed'}")
    return done.stdout


if __name__ == "__main__":
    run_as_script(main)
