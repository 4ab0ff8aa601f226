"""What DVC is told, held against the code; and DVC itself, on a clone with a run of seconds."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.project import ROOT, STAGES, commit, copy_project, imported_files, run

TINY = ("sample.size=150", "epochs=1", "models=[test_resnet]", "image_size=32")


def pipeline() -> dict[str, Any]:
    text: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return text


def code_deps(stage: str) -> list[Path]:
    """The files and folders of code that a stage depends on."""
    deps = pipeline()["stages"][stage]["deps"]
    return [ROOT / dep for dep in deps if dep.startswith(("cxr/", "stages/"))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    # An __init__ holds a docstring and nothing else (test_packages.py), so its bytes decide nothing.
    modules = {file for file in imported_files(ROOT / f"stages/{stage}.py") if file.name != "__init__.py"}
    outside = {file for file in modules if not any(file.is_relative_to(dep) for dep in code_deps(stage))}
    assert not outside
    assert "requirements.txt" in pipeline()["stages"][stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_package_that_it_does_not_import(stage: str) -> None:
    modules = imported_files(ROOT / f"stages/{stage}.py")
    unused = [dep for dep in code_deps(stage) if not any(file.is_relative_to(dep) for file in modules)]
    assert not unused


@pytest.mark.parametrize("stage", STAGES)
def test_the_docstring_says_what_dvc_is_told(stage: str) -> None:
    story = importlib.import_module(f"stages.{stage}").__doc__ or ""
    definition = pipeline()["stages"][stage]
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in definition["outs"]]
    data = [dep for dep in definition["deps"] if dep.startswith("data/")]
    for path in (*outs, *data):
        assert f"`{path}" in story, f"{stage} does not tell of {path}"
    assert f"`{definition['cmd']}`" in story
    assert definition["desc"]


def test_git_ignores_the_data_and_nothing_that_is_tracked(clone: Path) -> None:
    # DVC writes these lines itself, but takes them back when a later stage fails.
    outs = [out for stage in pipeline()["stages"].values() for out in stage["outs"] if isinstance(out, str)]
    ignored = ["data/nih/images/00000001_000.png", "data/weights/a.safetensors", "checkpoints/.lock", *outs]
    tracked = ["data/demo/images/a.png", "data/weights/README.md", "metrics/test.json", "plots/roc.png"]
    answer = run(clone, "git", "check-ignore", "--no-index", *ignored, *tracked)
    assert answer.splitlines() == ignored


def test_every_plot_is_one_that_evaluate_writes() -> None:
    for plot in pipeline()["plots"]:
        ((name, about),) = plot.items() if isinstance(plot, dict) else ((plot, None),)
        for path in about["y"] if about else [name]:
            assert (ROOT / path).is_file(), f"{path} was not written by the committed run"


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in a folder of its own, run once at toy size."""
    folder = copy_project(tmp_path_factory.mktemp("clone"))
    run(folder, "dvc", "exp", "run", *(word for change in TINY for word in ("-S", change)))
    commit(folder, "Run at toy size")
    return folder


def test_nothing_runs_where_nothing_changed(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == []


def test_a_remote_gives_a_second_clone_all_that_the_first_made(clone: Path, tmp_path: Path) -> None:
    """As two people share results: git carries the lock, a remote (here a plain folder) what it names."""
    run(clone, "dvc", "remote", "add", "--default", "--local", "store", str(tmp_path / "store"))
    run(clone, "dvc", "push")
    run(tmp_path, "git", "clone", "--quiet", str(clone), "second")
    second = tmp_path / "second"
    run(second, "dvc", "remote", "add", "--default", "--local", "store", str(tmp_path / "store"))
    run(second, "dvc", "pull")
    assert stages_run(run(second, "dvc", "repro")) == []
    for name in ("data/predictions.csv", "data/models/test_resnet-1.safetensors"):
        assert (second / name).read_bytes() == (clone / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": "1e-05"}, ["train"]),
        ({"val": "0.10", "test": "0.20"}, ["split"]),
        ({"image_size": "40"}, ["resize"]),
        ({"data_seed": "7"}, ["sample", "split"]),
    ],
)
def test_only_the_stages_that_a_parameter_concerns_run(
    clone: Path, changes: dict[str, str], expected: list[str]
) -> None:
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    for key, value in changes.items():
        text, count = re.subn(rf"^( *{key}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1
    (clone / "params.yaml").write_text(text, encoding="utf-8")
    assert stages_of_dry_run(clone) == expected


def stages_of_dry_run(clone: Path) -> list[str]:
    """What `dvc repro` would run; the working tree is as committed again afterwards.

    A dry run lists the stages whose own parameters or files changed; what follows them depends on what they write.
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
def test_a_change_of_a_module_reruns_the_stages_that_import_it(clone: Path, module: str, expected: list[str]) -> None:
    (clone / module).write_text((clone / module).read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert stages_of_dry_run(clone) == expected


def test_an_experiment_is_compared_with_the_commit_before(clone: Path) -> None:
    output = run(clone, "dvc", "exp", "run", "--name", "slow", "-S", "lr=1e-5")
    assert stages_run(output) == ["train", "evaluate"]
    assert "auroc.mean_15" in run(clone, "dvc", "metrics", "diff")
    assert "1e-05" in run(clone, "dvc", "params", "diff")
    assert "slow" in run(clone, "dvc", "exp", "show", "--csv")
    commit(clone, "Take the slow one")
    assert "auroc.mean_15" in run(clone, "dvc", "metrics", "diff", "HEAD~1")
    run(clone, "dvc", "plots", "diff", "HEAD~1", "--out", "dvc_plots")
    assert (clone / "dvc_plots/index.html").stat().st_size > 10_000


def test_a_bad_parameter_ends_with_its_name_and_costs_no_output(clone: Path) -> None:
    before = (clone / "metrics/test.json").read_bytes()
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", "epochs=abc"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "epochs: Input should be a valid integer (it is 'abc')" in done.stdout + done.stderr
    run(clone, "git", "checkout", "--quiet", ".")
    assert (clone / "metrics/test.json").read_bytes() == before
    run(clone, "dvc", "checkout")
    assert stages_run(run(clone, "dvc", "repro")) == []
