"""`tools.pull_request` in a small repository with one stage, which writes synthetic predictions and a metric."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from tests.fixtures.predictions import tables
from tests.fixtures.project import ROOT, commit, run
from tests.fixtures.stages import error_of, files_in
from tools import pull_request
from tools.pull_request import comment, main, mismatched_inputs, stale_stages, table_section

MAKE = """
import json, pathlib, sys
sys.path.insert(0, ROOT)
import yaml
from tests.fixtures.predictions import write_tables
params = yaml.safe_load(open("params.yaml"))
write_tables(**params)
pathlib.Path("metrics.json").write_text(json.dumps({"noise_squared": params["noise"] ** 2}))
"""
PIPELINE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [first, noise, seed]
    outs: [data/predictions.csv, data/sample.csv]
    metrics: [{metrics.json: {cache: false}}]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose branch `noisy` forks from `main` at `start`; `merged` is their merge, as on GitHub.

    `forgotten` has a changed parameter and changed code, but an old `dvc.lock`.
    """
    folder = tmp_path_factory.mktemp("repository")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        run(folder, "git", "config", key, value)
    run(folder, "dvc", "init", "--quiet")
    (folder / "make.py").write_text(MAKE.replace("ROOT", repr(str(ROOT))), encoding="utf-8")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    write_params(folder, noise=1)
    reproduce(folder, "start")
    run(folder, "git", "checkout", "--quiet", "-b", "noisy")
    write_params(folder, noise=4)
    reproduce(folder, "noisy-1")
    run(folder, "git", "checkout", "--quiet", "-b", "forgotten")
    write_params(folder, noise=5)
    with (folder / "make.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    commit(folder, "Forget dvc repro")
    run(folder, "git", "checkout", "--quiet", "main")
    (folder / "README.md").write_text("Nothing else\n", encoding="utf-8")
    commit(folder, "Go on")
    run(folder, "git", "checkout", "--quiet", "-b", "merged")
    run(folder, "git", "merge", "--quiet", "--no-ff", "--no-edit", "noisy")
    return folder


def write_params(folder: Path, noise: int) -> None:
    (folder / "params.yaml").write_text(f"first: 0\nnoise: {noise}\nseed: 1\n", encoding="utf-8")


def reproduce(folder: Path, tag: str) -> None:
    run(folder, "dvc", "repro", "--quiet")
    commit(folder, tag)
    run(folder, "git", "tag", tag)


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.pull_request", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def cells(text: str, name: str) -> list[str]:
    """The cells of the one row of a Markdown table that has this name in its second column."""
    (row,) = re.findall(rf"^\|[^|]*\| {name} +\|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def mean_auroc(noise: float) -> float:
    """Compute the mean AUROC of the test images with scikit-learn."""
    predictions, sample = tables(noise=noise)
    is_test = predictions["split"] == "test"
    return float(np.mean([roc_auc_score(sample[name][is_test], predictions[name][is_test]) for name in CLASSES]))


def test_parameters_metrics_and_conclusion_are_relative_to_the_merge_base(repository: Path) -> None:
    before = files_in(repository), run(repository, "git", "worktree", "list"), run(repository, "git", "status", "-s")
    done = call(repository, "main", "noisy")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    old, new = (run(repository, "git", "rev-parse", "--short", tag).strip() for tag in ("start", "noisy-1"))
    assert text.startswith(f"### Changes of {new} compared with {old}\n\n`dvc.lock` matches the code and parameters.\n")
    assert cells(text, "noise") == ["1", "4"]
    assert cells(text, "noise_squared") == ["1", "16", "15"]
    difference = mean_auroc(4) - mean_auroc(1)
    (shown,) = re.findall(
        r"^\*\*Branch is significantly worse than base: mean AUROC (\S+) \[.*\.\*\*$", text, re.MULTILINE
    )
    assert float(shown) == pytest.approx(difference, abs=0.0005)
    (row,) = re.findall(r"^mean of 15 +(\S+) +(\S+) ", text, re.MULTILINE)
    assert [float(value) for value in row] == pytest.approx([mean_auroc(1), mean_auroc(4)], abs=0.0005)
    after = files_in(repository), run(repository, "git", "worktree", "list"), run(repository, "git", "status", "-s")
    assert {name for name in after[0] ^ before[0] if not name.startswith((".git/", ".dvc/"))} == set()
    assert after[1:] == before[1:]


def test_a_merge_in_a_shallow_clone_without_data_gets_a_comment_without_auroc(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on GitHub's runners, which have no remote."""
    run(tmp_path, "git", "clone", "--quiet", "--depth", "2", "--branch", "merged", f"file://{repository}", "clone")
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr(sys, "argv", ["pull_request", "HEAD^1", "HEAD"])
    main()
    text = capsys.readouterr().out
    assert "`dvc.lock` matches the code and parameters." in text
    assert cells(text, "noise") == ["1", "4"]
    assert cells(text, "noise_squared") == ["1", "16", "15"]
    last = text.strip().splitlines()[-1]
    assert re.match(
        r"AUROC not compared: data/predictions\.csv of \w+ is neither in the DVC cache nor in a reachable remote", last
    )
    assert "Run `dvc push` on the machine that has the predictions." in last


def test_code_and_parameters_changed_since_the_last_run_are_listed(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert stale_stages("noisy") == {}
    assert stale_stages("forgotten") == {"make": ["make.py", "noise"]}
    text = comment("noisy", "forgotten")
    assert "**`dvc.lock` is out of date: run `dvc repro`" in text
    assert "- make: `make.py`, `noise`" in text
    assert cells(text, "noise") == ["4", "5"]
    assert "No metrics differ." in text
    assert "**Base and branch have identical predictions.**" in text


def test_inputs_that_no_other_stage_wrote_are_listed() -> None:
    """As in a lock merged by hand from two branches: each stage is consistent, but not with the others."""
    stages = {
        "split": {"deps": [{"path": "a", "md5": "1"}], "outs": [{"path": "b", "md5": "2"}]},
        "train": {"deps": [{"path": "b", "md5": "2"}, {"path": "c.py", "md5": "3"}], "outs": []},
        "other": {"deps": [{"path": "b", "md5": "9"}]},
    }
    assert mismatched_inputs(stages) == {"split": [], "train": [], "other": ["b"]}


def test_without_a_lock_every_stage_is_stale(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(repository), "clone")
    clone = tmp_path / "clone"
    run(clone, "git", "rm", "--quiet", "dvc.lock")
    run(clone, "git", "-c", "user.name=Test", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "Unlock")
    monkeypatch.chdir(clone)
    assert stale_stages("HEAD") == {"make": ["make.py", "params.yaml", "metrics.json"]}


def test_a_long_table_is_collapsed_and_an_empty_one_is_a_sentence() -> None:
    rows = "".join(f"| p | name{number} | 1 | 2 |\n" for number in range(13))
    head = "| Path | Param | a | b |\n|---|---|---|---|\n"
    assert table_section("parameters", head) == "No parameters differ."
    assert table_section("parameters", head + "| p | lr | 1 | 2 |\n\n").startswith("**Parameters**\n\n| Path ")
    text = table_section("parameters", head + rows)
    # GitHub renders a table in <details> only after an empty line.
    assert text.startswith("<details><summary>Parameters: 13 differ</summary>\n\n| Path ")
    assert text.endswith(" |\n\n</details>")


def test_an_unknown_commit_and_a_missing_pipeline_give_one_message(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert error_of(call(repository, "main", "nonesuch")).startswith("error: nonesuch is not a commit of this clone")
    monkeypatch.chdir(repository)
    alone = run(repository, "git", "commit-tree", "-m", "Alone", "HEAD^{tree}").strip()
    with pytest.raises(InputError, match="have no common commit in this clone; run `git fetch --unshallow`"):
        pull_request.comment(alone, "HEAD")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not a git repository"):
        pull_request.comment("HEAD~1", "HEAD")
