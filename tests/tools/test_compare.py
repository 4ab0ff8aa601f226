"""`tools.compare` in a small repository with one stage, which writes synthetic predictions."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.core.errors import InputError
from cxr.core.files import write_csv
from cxr.core.labels import CLASSES
from cxr.core.paths import PREDICTIONS, SAMPLE
from cxr.evaluation.metrics import auroc
from tests.fixtures.predictions import tables
from tests.fixtures.project import ROOT, commit, run
from tests.fixtures.stages import error_of, files_in
from tests.fixtures.terminal import assert_bar_shown, simulate_terminal
from tools.compare import (
    as_json,
    check,
    command_line,
    compare,
    conclusion,
    main,
    plot_differences,
    print_comparison,
    verdict,
)
from tools.evaluate.test_sets import read_pair
from tools.revisions import TestSet, parse_test_set, read_test_set, shared_images

MAKE = """
import yaml
from tests.fixtures.predictions import write_tables
write_tables(**yaml.safe_load(open("params.yaml")))
"""
PIPELINE = """
stages:
  make:
    cmd: python make.py
    params: [first, noise, seed]
    outs: [data/predictions.csv, data/sample.csv]
"""


def make_test_set(name: str, first: int = 0, noise: float = 1, seed: int = 1) -> TestSet:
    return parsed(name, *tables(first, noise, seed))


def parsed(name: str, predictions: pd.DataFrame, sample: pd.DataFrame) -> TestSet:
    content = {PREDICTIONS: predictions.to_csv(index=False), SAMPLE: sample.to_csv(index=False)}
    return parse_test_set(name, None, lambda path: content[path].encode())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the tags `start` (no predictions), `good` and `later` (other images), and the experiment
    `crippled`; the workspace is `good` with another seed."""
    folder = tmp_path_factory.mktemp("history")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        run(folder, "git", "config", key, value)
    run(folder, "dvc", "init", "--quiet")
    commit(folder, "Start")
    run(folder, "git", "tag", "start")
    (folder / "make.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{MAKE}", encoding="utf-8")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    for tag, first in (("later", 120), ("good", 0)):
        make(folder, first=first, seed=1)
        commit(folder, tag)
        run(folder, "git", "tag", tag)
    run(folder, "dvc", "exp", "run", "--quiet", "--name", "crippled", "-S", "noise=4")
    for table, path in zip(tables(seed=2), (PREDICTIONS, SAMPLE), strict=True):
        write_csv(table, folder / path)
    return folder


def make(folder: Path, **params: int) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in {"noise": 1, **params}.items())
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    run(folder, "dvc", "repro", "--quiet")


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.compare", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def call_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *words: str
) -> tuple[str, str]:
    """Run the command in this process, which is faster; return its output and its warnings."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    main()
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_a_crippled_experiment_is_worse_than_a_commit(history: Path, tmp_path: Path) -> None:
    before = files_in(history / "data")
    done = call(history, "good", "crippled", "--plot", str(tmp_path / "plots" / "difference.png"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("A: good (")
    assert "120 shared test images of 40 patients" in lines[2]
    assert [line.split()[0] for line in lines[5:22]] == ["mean", "mean", *(name.split()[0] for name in CLASSES)]
    assert lines[-2].startswith("crippled is significantly worse than good: mean AUROC -0.")
    assert "train each with several seeds" in lines[-1]
    assert (tmp_path / "plots/difference.png").read_bytes().startswith(b"\x89PNG")
    assert files_in(history / "data") == before


def test_another_seed_does_not_differ_significantly_and_json_has_full_precision(history: Path) -> None:
    done = call(history, "--json", "--bootstrap-samples", "500")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["a"]["revision"], found["b"]["revision"], found["b"]["commit"]) == ("HEAD", "workspace", None)
    assert found["a"]["commit"] == run(history, "git", "rev-parse", "HEAD").strip()
    assert found["verdict"] == "not significant"
    assert found["conclusion"].startswith("No significant difference between HEAD and workspace: ")
    assert (found["images"], found["patients"], found["bootstrap_samples"]) == (120, 40, 500)
    a, b = make_test_set("a", seed=1), make_test_set("b", seed=2)
    for side, key in ((a, "a"), (b, "b")):
        expected = auroc(side.labels.to_numpy(), side.images[list(CLASSES)].to_numpy())
        np.testing.assert_allclose([found["auroc"][name][key] for name in CLASSES], expected, rtol=1e-12)
        assert found["auroc"]["mean_15"][key] == pytest.approx(expected.mean(), rel=1e-12)
    assert found["auroc"]["mean_14"]["p_holm"] is None
    assert all(found["auroc"][name]["p_holm"] >= found["auroc"][name]["p_value"] for name in CLASSES)


def test_only_shared_images_are_compared_with_a_warning(
    history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, errors = call_here(monkeypatch, capsys, history, "later", "good")
    assert errors == (
        "warning: the test sets differ: 60 images are in both, 60 only in later, 60 only in good; "
        "only the shared images are compared\n"
    )
    assert "60 shared test images of 20 patients" in output


def test_an_unknown_revision_ends_with_one_message(history: Path) -> None:
    assert error_of(call(history, "nonesuch")) == "error: nonesuch: unknown Git revision 'nonesuch'\n"


def test_a_commit_without_predictions_is_named(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(history)
    with pytest.raises(InputError, match=r"start has no data/predictions.csv: its pipeline does not write this file"):
        read_test_set("start")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bootstrap-samples", "20"], "--bootstrap-samples 20: use 299 or more"),
        (["--plot", "difference.svg"], r"--plot difference.svg: only PNG is supported"),
    ],
)
def test_invalid_options_are_rejected(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(command_line().parse_args(words))


def test_outside_of_a_dvc_repository_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="HEAD: you are not inside of a DVC repository"):
        read_test_set("HEAD")


def test_predictions_are_read_from_a_remote_and_named_if_missing(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(history, "dvc", "remote", "add", "--local", "--default", "--force", "store", str(tmp_path / "store"))
    run(history, "dvc", "push", "--quiet", "--all-tags")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(history), str(clone))
    error = error_of(call(clone, "later", "good"))
    revision = run(clone, "git", "rev-parse", "later")[:7]
    assert "data/predictions.csv of later is neither in the DVC cache nor in a reachable remote" in error
    assert f"git checkout {revision} && dvc pull data/predictions.csv data/sample.csv" in error
    assert f"git checkout {revision} && dvc repro" in error
    # A remote that is in no commit.
    run(clone, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    output, _ = call_here(monkeypatch, capsys, clone, "later")
    assert "60 shared test images of 20 patients" in output


def test_test_sets_without_a_shared_image_are_an_error() -> None:
    with pytest.raises(InputError, match="a and b have no test image in common"):
        shared_images(make_test_set("a"), make_test_set("b", first=3000))


def test_different_labels_and_patients_of_shared_images_give_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    predictions, sample = tables(seed=2)
    tested = predictions.index[predictions["split"] == "test"]
    sample.loc[tested[:7], "Edema"] = 1 - sample.loc[tested[:7], "Edema"]
    predictions.loc[tested[:2], "patient"] = 999
    a, b = shared_images(make_test_set("a"), parsed("b", predictions, sample))
    assert capsys.readouterr().err == (
        "warning: the labels of 7 shared images differ; those of b are used\n"
        "warning: the patients of 2 shared images differ; those of b are used\n"
    )
    found = compare(a, b, 299).table
    expected = auroc(b.labels.to_numpy(), a.images[list(CLASSES)].to_numpy())
    np.testing.assert_allclose(found["a"].iloc[2:], expected, rtol=1e-12)


def test_tables_of_different_runs_and_malformed_tables_are_errors() -> None:
    predictions, sample = tables()
    with pytest.raises(InputError, match=r"data/predictions.csv does not match data/sample.csv"):
        parsed("a", predictions, sample.iloc[:-5])
    with pytest.raises(InputError, match=r"data/predictions.csv of a is not a table that"):
        parsed("a", predictions.drop(columns="Edema"), sample)


def test_a_class_without_positives_gives_a_warning_and_has_no_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, sample = tables()
    sample["Hernia"] = 0
    a, b = parsed("a", predictions, sample), parsed("b", tables(seed=2)[0], sample)
    comparison = compare(a, b, 299)
    print_comparison(comparison, a, b)
    plot_differences(comparison, a, b, tmp_path / "plot.png")
    printed = capsys.readouterr()
    assert (
        printed.err
        == "warning: no AUROC for lack of positives, negatives or predictions: Hernia; excluded from the means\n"
    )
    assert re.search(r"^Hernia +0( +-){6}$", printed.out, re.MULTILINE)
    rows = as_json(comparison, a, b)["auroc"]
    assert rows["Hernia"]["p_value"] is None
    assert rows["mean_15"]["b"] == pytest.approx(np.mean([rows[name]["b"] for name in CLASSES if name != "Hernia"]))


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr.core.progress.DELAY", 0)
    terminal = simulate_terminal(monkeypatch)
    compare(make_test_set("a"), make_test_set("b"), 299)
    assert_bar_shown(terminal.getvalue(), "bootstrap")


def test_exchanging_the_revisions_reverses_the_verdict() -> None:
    good, bad = make_test_set("good"), make_test_set("bad", noise=4)
    there, back = compare(good, bad, 499), compare(bad, good, 499)
    assert (verdict(there), verdict(back)) == ("worse", "better")
    np.testing.assert_allclose(there.table["low"], -back.table["high"])
    np.testing.assert_array_equal(there.table["p_value"], back.table["p_value"])


def test_identical_predictions_are_reported_as_identical() -> None:
    a, b = make_test_set("a"), make_test_set("b")
    assert conclusion(compare(a, b, 299), a, b) == "a and b have identical predictions."


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the labels labels.csv, the predictions a.csv and b.csv, and `of_a`, as tools.evaluate writes it."""
    (a, labels), (b, _) = tables(seed=1), tables(noise=4, seed=2)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    a.to_csv(tmp_path / "a.csv", index=False)
    b.drop(columns=["patient", "split", "Hernia"]).iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "of_a/metrics").mkdir(parents=True)
    (tmp_path / "of_a/metrics/external.json").write_text("{}")
    a.to_csv(tmp_path / "of_a/predictions.csv", index=False)
    labels.to_csv(tmp_path / "of_a/sample.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (("a.csv", "b.csv", "--labels", "labels.csv"), "120 only in b.csv"),
        (("of_a", "b.csv"), "120 images have predictions but no labels, and are left out"),
    ],
)
def test_tables_and_folders_are_compared_without_a_repository(
    measured: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    warning: str,
) -> None:
    output, errors = call_here(monkeypatch, capsys, measured, *words, "--json", "--bootstrap-samples", "299")
    found = json.loads(output)
    # a.csv has a column split: only its test images are compared.
    (a, labels), (b, _) = tables(seed=1), tables(noise=4, seed=2)
    tested = a["split"] == "test"
    assert (found["images"], found["patients"], found["verdict"]) == (120, 40, "worse")
    for key, table in (("a", a), ("b", b)):
        expected = auroc(
            labels.loc[tested, list(CLASSES)].to_numpy(np.uint8), table.loc[tested, list(CLASSES)].to_numpy()
        )
        shown = [name for name in CLASSES if name != "Hernia"]
        np.testing.assert_allclose(
            [found["auroc"][name][key] for name in shown], expected[[CLASSES.index(name) for name in shown]], rtol=1e-12
        )
    assert found["auroc"]["Hernia"]["a"] is None
    assert warning in errors


def test_two_tables_need_labels(measured: Path) -> None:
    with pytest.raises(InputError, match=r"a.csv and b.csv are tables without labels; add --labels DATA"):
        read_pair("a.csv", "b.csv", None)


def test_a_folder_without_its_tables_is_an_error(measured: Path) -> None:
    (measured / "of_a/sample.csv").unlink()
    with pytest.raises(InputError, match=r"there is no of_a/sample.csv; run tools.evaluate again"):
        read_pair("of_a", "b.csv", None)
