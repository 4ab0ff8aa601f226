"""dvc.yaml compared with the code, and DVC commands in a clone of the project with a tiny network."""

import importlib
import json
import os
import re
import signal
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.api import artifacts_show

from cxr.core.errors import InputError
from cxr.params import STAGES
from tests.fixtures.project import ROOT, commit, copy_project, imported_files, run, start_training
from tests.fixtures.stages import write_params

TINY = ("sample.size=150", "epochs=1", "models=[test_resnet]", "image_size=32")


def pipeline() -> dict[str, Any]:
    text: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return text


def code_deps(stage: str) -> list[Path]:
    """Return the files and folders of code that a stage depends on."""
    deps = pipeline()["stages"][stage]["deps"]
    return [ROOT / dep for dep in deps if dep.startswith(("cxr/", "stages/"))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    # An __init__.py contains only a docstring (test_packages.py), so a stage need not depend on it.
    modules = {file for file in imported_files(ROOT / f"stages/{stage}.py") if file.name != "__init__.py"}
    outside = {file for file in modules if not any(file.is_relative_to(dep) for dep in code_deps(stage))}
    assert not outside
    assert "constraints.txt" in pipeline()["stages"][stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_package_that_it_does_not_import(stage: str) -> None:
    modules = imported_files(ROOT / f"stages/{stage}.py")
    unused = [dep for dep in code_deps(stage) if not any(file.is_relative_to(dep) for file in modules)]
    assert not unused


@pytest.mark.parametrize("stage", STAGES)
def test_the_docstring_of_a_stage_lists_its_command_and_data(stage: str) -> None:
    definition = pipeline()["stages"][stage]
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in definition["outs"]]
    data = [dep for dep in definition["deps"] if dep.startswith("data/")]
    quoted = re.findall("`([^`]+)`", importlib.import_module(f"stages.{stage}").__doc__ or "")
    for path in (*outs, *data):
        # A folder may be listed as itself or by the files in it.
        listed = any(fnmatch(path, quote) or quote.startswith(f"{path}/") for quote in quoted)
        assert listed, f"the docstring does not mention {path}"
    assert definition["cmd"] in quoted
    assert definition["desc"]


def test_git_ignores_the_outputs_and_no_tracked_file(clone: Path) -> None:
    # .gitignore lists the outputs, since DVC removes its own entries when a later stage fails.
    outs = [out for stage in pipeline()["stages"].values() for out in stage["outs"] if isinstance(out, str)]
    ignored = ["data/nih/images/00000001_000.png", "data/weights/a.safetensors", "checkpoints/.lock", *outs]
    tracked = ["data/demo/images/a.png", "data/weights/README.md", "metrics/test.json", "plots/roc.png"]
    output = run(clone, "git", "check-ignore", "--no-index", *ignored, *tracked)
    assert output.splitlines() == ignored


def test_curves_can_be_watched_during_a_training(clone: Path) -> None:
    replace_once(clone / "params.yaml", r"^epochs: 1$", "epochs: 1000")
    training = start_training(clone)
    assert training.stdout is not None
    try:
        while "epoch   2" not in (line := training.stdout.readline()):
            assert line, "the training ended"
        shown = json.loads(run(clone, "dvc", "plots", "show", "--json"))["data"]
    finally:
        training.kill()
        training.communicate()
    ((plot,),) = (plots for name, plots in shown.items() if "during training" in name)
    epochs = [int(row["epoch"]) for row in plot["content"]["data"]["values"]]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 2
    run(clone, "git", "checkout", "--quiet", ".")
    run(clone, "dvc", "checkout", "--force")
    assert stages_run(run(clone, "dvc", "repro")) == []


def test_every_plot_of_dvc_yaml_is_written() -> None:
    for plot in pipeline()["plots"]:
        ((name, definition),) = plot.items() if isinstance(plot, dict) else ((plot, None),)
        for path in definition["y"] if definition else [name]:
            is_output = path in pipeline()["stages"]["train"]["outs"]
            assert is_output or (ROOT / path).is_file(), f"the committed run has no {path}"


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project in which the pipeline ran once with a tiny network."""
    folder = copy_project(tmp_path_factory.mktemp("clone"))
    run(folder, "dvc", "exp", "run", *(option for change in TINY for option in ("-S", change)))
    commit(folder, "Run with a tiny network")
    return folder


def test_no_stage_runs_if_nothing_changed(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == []


def test_a_second_clone_pulls_all_outputs_from_a_remote(clone: Path, tmp_path: Path) -> None:
    run(clone, "dvc", "remote", "add", "--default", "--local", "store", str(tmp_path / "store"))
    run(clone, "dvc", "push")
    run(tmp_path, "git", "clone", "--quiet", str(clone), "second")
    second = tmp_path / "second"
    run(second, "dvc", "remote", "add", "--default", "--local", "store", str(tmp_path / "store"))
    run(second, "dvc", "pull")
    assert stages_run(run(second, "dvc", "repro")) == []
    for name in ("data/predictions.csv", "data/models/test_resnet-1.safetensors"):
        assert (second / name).read_bytes() == (clone / name).read_bytes()


def test_the_networks_of_a_release_are_an_artifact(clone: Path, tmp_path: Path) -> None:
    run(clone, "git", "tag", "--annotate", "classifier@v0.1.0", "--message", "Release 0.1.0")
    found = artifacts_show("classifier", version="v0.1.0", repo=str(clone))
    assert found == {"rev": run(clone, "git", "rev-parse", "HEAD").strip(), "path": "data/models"}
    run(clone, "dvc", "artifacts", "get", ".", "classifier", "--out", str(tmp_path / "models"))
    for file in (clone / "data/models").iterdir():
        assert (tmp_path / "models" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "models").iterdir())) == 1
    run(clone, "git", "tag", "--delete", "classifier@v0.1.0")


def test_the_version_is_that_of_the_last_release() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    releases = re.findall(r"^## (\d+\.\d+\.\d+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert (citation["version"], str(citation["date-released"])) == releases[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": "1e-05"}, ["train"]),
        ({"val": "0.10", "test": "0.20"}, ["split"]),
        ({"image_size": "40"}, ["resize"]),
        ({"data_seed": "7"}, ["sample", "split"]),
    ],
)
def test_a_changed_parameter_reruns_only_the_stages_that_read_it(
    clone: Path, changes: dict[str, str], expected: list[str]
) -> None:
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    for key, value in changes.items():
        text, count = re.subn(rf"^( *{key}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1
    (clone / "params.yaml").write_text(text, encoding="utf-8")
    assert stages_of_dry_run(clone) == expected


def stages_of_dry_run(clone: Path) -> list[str]:
    """Return the stages that `dvc repro --dry` lists, and restore the working tree.

    A dry run lists the stages whose own parameters or dependencies changed. Whether `dvc repro` also reruns the stages
    after them depends on the outputs.
    """
    try:
        return stages_run(run(clone, "dvc", "repro", "--dry"))
    finally:
        run(clone, "git", "checkout", "--quiet", ".")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("cxr/reporting/plots.py", ["evaluate"]),
        ("cxr/reporting/report.html", ["evaluate"]),
        ("cxr/training/checkpoints.py", ["train"]),
        ("cxr/images/png.py", ["sample", "resize"]),
        ("cxr/evaluation/calibration.py", ["evaluate"]),
        ("cxr/evaluation/metrics.py", ["train", "evaluate"]),
        ("cxr/evaluation/params.py", ["evaluate"]),
        ("cxr/training/params.py", ["train"]),
        ("cxr/datasets/params.py", ["sample", "split", "evaluate"]),
        ("cxr/images/params.py", ["sample", "resize"]),
        ("cxr/params.py", []),
    ],
)
def test_a_changed_file_reruns_only_the_stages_that_depend_on_it(clone: Path, module: str, expected: list[str]) -> None:
    (clone / module).write_text((clone / module).read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert stages_of_dry_run(clone) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("cxr/evaluation/params.py", ["evaluate"]),
        ("cxr/inference/params.py", ["evaluate"]),
        ("cxr/training/params.py", ["train"]),
        ("cxr/models/params.py", ["train", "evaluate"]),
    ],
)
def test_a_reworded_description_reruns_no_earlier_stage(clone: Path, file: str, expected: list[str]) -> None:
    replace_once(clone / file, r'description="', 'description="Reworded: ')
    assert stages_of_dry_run(clone) == expected


def test_a_new_parameter_of_evaluate_reruns_evaluate_only(clone: Path) -> None:
    replace_once(clone / "cxr/evaluation/params.py", r"^    calibration_bins:", r"    new_param: int\n\g<0>")
    replace_once(clone / "dvc.yaml", r"^      - calibration_bins$", r"\g<0>\n      - new_param")
    replace_once(clone / "params.yaml", r"^calibration_bins:", r"new_param: 1\n\g<0>")
    run(clone, "python", "-m", "cxr.params")
    assert stages_of_dry_run(clone) == ["evaluate"]


def replace_once(path: Path, pattern: str, replacement: str) -> None:
    """Replace the first match of `pattern` in a file."""
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_parameter_ends_every_stage(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path, bootstrap_sample=100)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"bootstrap_sample: unknown parameter; did you mean bootstrap_samples\?$"):
        importlib.import_module(f"stages.{stage}").main()
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_an_experiment_is_compared_with_the_previous_commit(clone: Path) -> None:
    output = run(clone, "dvc", "exp", "run", "--name", "slow", "-S", "lr=1e-5")
    assert stages_run(output) == ["train", "evaluate"]
    assert "auroc.mean_15" in run(clone, "dvc", "metrics", "diff")
    assert "1e-05" in run(clone, "dvc", "params", "diff")
    assert "slow" in run(clone, "dvc", "exp", "show", "--csv")
    commit(clone, "Apply the experiment slow")
    assert "auroc.mean_15" in run(clone, "dvc", "metrics", "diff", "HEAD~1")
    run(clone, "dvc", "plots", "diff", "HEAD~1", "--out", "dvc_plots")
    assert (clone / "dvc_plots/index.html").stat().st_size > 10_000


def test_a_training_that_is_stopped_in_a_copy_loses_its_checkpoints(clone: Path) -> None:
    """As documented in docs/dvc.md: DVC removes the copy. The repository itself is unchanged."""
    before = sorted((clone / "checkpoints").iterdir())
    command = ["dvc", "exp", "run", "--temp", "-S", "epochs=1000"]
    dvc = subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert dvc.stdout is not None
    while "epoch   2" not in (line := dvc.stdout.readline()):
        assert line, "the training ended before it could be stopped"
    copies = clone / ".dvc/tmp/exps/standalone"
    (lock,) = copies.glob("tmp*/checkpoints/.lock")
    os.kill(int(lock.read_text(encoding="ascii")), signal.SIGTERM)
    output, _ = dvc.communicate()
    assert dvc.returncode != 0
    assert "Traceback" not in output
    assert not list(copies.glob("tmp*"))
    assert sorted((clone / "checkpoints").iterdir()) == before
    assert run(clone, "git", "status", "--porcelain") == ""


def test_an_invalid_parameter_is_an_error_and_keeps_the_outputs(clone: Path) -> None:
    before = (clone / "metrics/test.json").read_bytes()
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", "epochs=abc"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "epochs: Input should be a valid integer (got 'abc')" in done.stdout + done.stderr
    run(clone, "git", "checkout", "--quiet", ".")
    assert (clone / "metrics/test.json").read_bytes() == before
    run(clone, "dvc", "checkout")
    assert stages_run(run(clone, "dvc", "repro")) == []
