"""The documentation: its commands run, its links resolve, and its language is plain."""

import ast
import re
import shutil
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cxr.core.params import read_params
from cxr.params import Params
from tests.fixtures.project import ROOT, commit, copy_project, run

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "benchmarks").glob("*.md"))]
# Modules and packages with a command.
TOOLS = sorted(
    {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__", "output_file", "revisions"}
    | {path.parent.name for path in (ROOT / "tools").glob("*/__main__.py")}
)

# Commands that only read, and are run in the repository itself.
RUN_HERE = ("make report", "python -m cxr.params")

# Commands that are run in this order in a copy of the project, whose pipeline is replaced by `STAGE`.
RUN_IN_COPY = (
    "dvc status",
    "dvc repro --dry",
    "dvc repro",
    "dvc exp run --queue --name fast -S lr=0.001",
    "dvc exp run --queue --name slower -S lr=0.00025",
    "dvc queue status",
    "dvc queue remove slower",
    "dvc queue start",
    "dvc exp run --name slow -S lr=0.0005",
    "dvc params diff",
    "dvc metrics diff",
    "dvc metrics diff HEAD~1",
    "dvc plots diff HEAD~1",
    "git checkout . && dvc checkout --force",
    "dvc exp show --only-changed --sort-by auroc.mean_15",
    "dvc exp show -A --only-changed",
    "python -m tools.compare HEAD slow",
    "python -m tools.compare HEAD slow --json",
    "python -m tools.compare HEAD slow --plot differences.png",
    "dvc exp branch slow slow-branch",
    "python -m tools.pull_request main slow-branch",
    "dvc queue logs fast",
    "dvc remote add --default store /some/shared/folder",
    'git commit -am "Add the remote" && dvc push',
    "dvc pull",
    "dvc exp push origin slow",
    "dvc exp pull origin slow",
    "dvc exp apply slow",
    "dvc exp remove slow",
    'git add -A && git commit -m "Lower the learning rate"',
    "git checkout HEAD~1 && dvc checkout",
)


# Predictions that depend on `lr` alone, in place of a training.
STAGE = """
import json
from pathlib import Path

import yaml

from tests.fixtures.predictions import write_tables

lr = yaml.safe_load(Path("params.yaml").read_text())["lr"]
write_tables(first=0, noise=1 + 100 * lr, seed=1)
Path("metrics/test.json").write_text(json.dumps({"auroc": {"mean_15": 1 - lr}}))
"""
PIPELINE = """
stages:
  train:
    cmd: python stage.py
    params: [lr]
    deps: [stage.py]
    outs: [data/predictions.csv, data/sample.csv]
    metrics: [metrics/test.json: {cache: false}]
plots:
  - plots/roc.png
"""


class Elsewhere(NamedTuple):
    """A test file that runs a command, and text that it must contain for that."""

    file: str
    text: str


# Commands that other tests run, perhaps with other files.
RUN_ELSEWHERE = {
    "make accept": Elsewhere("tests/test_accept.py", "copy_project"),
    "make audit": Elsewhere("tests/tools/test_audit.py", "audit.main"),
    "dvc artifacts get . classifier --out models": Elsewhere("tests/test_dvc.py", '"artifacts", "get"'),
    "python -m tools.export --timm chest": Elsewhere("tests/tools/test_export.py", '"--timm"'),
    "python -m tools.predict data/demo/images/00000006_000.png --saliency-maps maps": Elsewhere(
        "tests/tools/test_predict.py", "--saliency-maps"
    ),
    "python -m tools.predict images/ --csv predictions.csv": Elsewhere("tests/tools/test_predict.py", "--csv"),
    "python -m tools.predict images/ --json predictions.json": Elsewhere("tests/tools/test_predict.py", "--json"),
    "python -m tools.predict chest.png --saliency-maps maps --class Mass": Elsewhere(
        "tests/tools/test_predict.py", "--class"
    ),
    "python -m tools.predict chest.png --prevalence Pneumothorax=0.1": Elsewhere(
        "tests/tools/test_predict.py", "--prevalence"
    ),
    "python -m tools.predict chest.png --model data/models/resnet10t-1.safetensors": Elsewhere(
        "tests/tools/test_predict.py", "--model"
    ),
    "python -m tools.app": Elsewhere("tests/tools/test_app.py", "tools.app"),
    "python -m tools.export": Elsewhere("tests/tools/test_export.py", "tools.export"),
    "python -m tools.export data/models/resnet10t-1.safetensors --output chest.onnx": Elsewhere(
        "tests/tools/test_export.py", "--output"
    ),
    "python -m tools.download data/nih --expert-labels": Elsewhere("tests/tools/test_download.py", "--expert-labels"),
    "python -m tools.download data/nih --from FOLDER": Elsewhere("tests/tools/test_download.py", "tools.download"),
    "python -m tools.weights efficientnet_b3 --from FILE": Elsewhere("tests/tools/test_weights.py", "--from"),
    "python -m tools.phantom data/chexpert-phantom --layout chexpert": Elsewhere(
        "tests/test_chexpert_stages.py", 'layout="chexpert"'
    ),
    "dvc exp run -S raw_dir=data/chexpert-phantom -S split.method=official": Elsewhere(
        "tests/test_chexpert_stages.py", "official"
    ),
    "dvc exp run -S 'seeds=[1,2,3]'": Elsewhere("tests/stages/test_evaluate.py", "seeds=[1, 2]"),
    "dvc exp run -S tta.translate=0.05": Elsewhere("tests/stages/test_evaluate.py", "tta="),
    "dvc exp run -S devices=4": Elsewhere("tests/cxr/models/test_distributed.py", "devices=2"),
    ".ci/compare main my-branch > comment.md": Elsewhere("tests/tools/test_pull_request.py", "pull_request"),
    "python -m tools.evaluate --labels data/nih --predictions theirs.csv --output theirs": Elsewhere(
        "tests/tools/test_evaluate.py", "--predictions"
    ),
    "python -m tools.phantom data/chexpert-other --layout chexpert --seed 7 --images 400": Elsewhere(
        "tests/test_chexpert_stages.py", 'layout="chexpert"'
    ),
    "python -m tools.evaluate --labels data/chexpert-other --model data/models/resnet10t-1.safetensors "
    "--patients other --output on-chexpert": Elsewhere("tests/tools/test_evaluate.py", "--patients"),
    "python -m tools.evaluate --labels data/nih-mini --model data/models/resnet10t-1.safetensors "
    "--output on-nih": Elsewhere("tests/tools/test_evaluate.py", "--model"),
    "python -m tools.import_model FOLDER --output other.safetensors": Elsewhere(
        "tests/tools/test_import_model.py", "test_a_timm_folder_predicts_the_same"
    ),
    "python -m tools.compare ours theirs": Elsewhere("tests/tools/test_compare.py", "read_pair"),
    "python -m tools.compare ours theirs.csv": Elsewhere("tests/tools/test_compare.py", '"of_a", "b.csv"'),
    "python -m tools.compare a.csv b.csv --labels data/nih": Elsewhere("tests/tools/test_compare.py", "--labels"),
}

# Commands that no test runs, and what they need.
NEEDS = {
    "make repro": "network to install packages",
    "make verify": "network to install packages",
    'git tag -a v1.0.0 -m "Release 1.0.0"': "a release",
    'git tag -a classifier@v1.0.0 -m "Networks of release 1.0.0"': "a release",
    "git push origin v1.0.0 classifier@v1.0.0 && dvc push": "a release",
    "make app": "network to install packages",
    "make test": "these tests themselves",
    "make test-fast": "these tests themselves",
    "make lint": "would change files",
    "make bench": "long run",
    "make rehearse": "long run",
    "make fuzz": "long run",
    "python3 -m venv .venv && . .venv/bin/activate": "network to install packages",
    "pip install -r requirements.txt": "network to install packages",
    "pip install -r requirements-app.txt": "network to install packages",
    "pip install -r requirements-export.txt": "network to install packages",
    "python -m tools.download data/nih": "network and 60 GB",
    "python -m tools.weights efficientnet_b3": "network",
    "dvc exp run -S raw_dir=data/nih": "NIH data",
    "dvc exp run -S raw_dir=data/nih -S sample.size=112120": "NIH data",
    "cp presets/nih-40k.yaml params.yaml && dvc repro": "NIH data, GPU, long run",
    "cp presets/nih-official.yaml params.yaml && dvc repro": "NIH data, GPU, long run",
    "dvc exp run -S raw_dir=data/nih-mini -S sample.size=2430 -S split.method=official "
    "-S 'models=[tf_efficientnet_lite0,tf_efficientnet_lite1]' -S weights=imagenet "
    "-S in_chans=3 -S image_size=128 -S epochs=6 -S T_0=6 -S lr=0.0005": "NIH data, long run",
    "dvc exp run -S raw_dir=data/CheXpert-v1.0-small -S split.method=official": "CheXpert data",
    "python -m tools.import_model torchxrayvision:densenet121-res224-nih --output xrv-nih.safetensors": "network",
    "benchmarks/gpu.sh FOLDER": "GPU",
    "benchmarks/gpu.sh FOLDER --toy": "long run",
    "torchrun --nnodes 2 --node-rank N --master-addr FIRST --master-port 29500 --nproc-per-node 8 -m stages.train": (
        "several machines"
    ),
    # The outcome that the page quotes needs the demo's full size.
    "python -m tools.compare HEAD one-epoch": "long run",
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the commands of a page: all lines of bash blocks, and the lines of others that begin with `$`."""
    found = []
    for language, text in blocks(page):
        lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
        if language != "bash":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found += [re.sub(r"\s+#.*$", "", line) for line in lines if line.strip()]
    return found


def all_commands() -> set[str]:
    return {command for page in PAGES for command in commands(page)}


def test_every_command_is_run_or_states_what_it_needs() -> None:
    listed = [*RUN_HERE, *RUN_IN_COPY, *RUN_ELSEWHERE, *NEEDS]
    assert len(set(listed)) == len(listed)
    assert all_commands() - set(listed) == set(), "not in the tables above"
    assert set(listed) - all_commands() == set(), "in no page"


@pytest.mark.parametrize("command", RUN_ELSEWHERE)
def test_the_other_test_of_a_command_exists(command: str) -> None:
    file, text = RUN_ELSEWHERE[command]
    assert text in (ROOT / file).read_text(encoding="utf-8")


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"make ([a-z-]+)\b", code_of(page))}
    assert named <= targets


def code_of(page: Path) -> str:
    """Return all code of a page: fenced blocks and inline code."""
    text = page.read_text(encoding="utf-8")
    return "\n".join([*(block for _, block in blocks(page)), *re.findall(r"`([^`\n]+)`", text)])


def test_parameters_in_commands_exist_with_values_that_are_allowed() -> None:
    committed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for command in all_commands():
        values = deepcopy(committed)
        for name, value in re.findall(r"-S '?([\w.]+)=([^\s']+)", command):
            section, *inner = name.split(".")
            target = values[section] if inner else values
            assert (inner or [section])[0] in target, command
            target[(inner or [section])[0]] = yaml.safe_load(value)
        Params.model_validate(values)


@pytest.mark.parametrize("name", ["nih-40k", "nih-official"])
def test_presets_can_replace_params(name: str) -> None:
    read_params(Params, ROOT / f"presets/{name}.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_a_help_with_an_example_and_the_documented_options(tool: str) -> None:
    printed = run(ROOT, "python", "-m", f"tools.{tool}", "--help")
    documented = {
        option
        for command in all_commands()
        if f"tools.{tool} " in command
        for option in re.findall(r"--[a-z-]+", command)
    }
    assert not {option for option in documented if option not in printed}
    assert re.search(rf"^ +python -m tools\.{tool}\b", printed, re.MULTILINE), "no example"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN_HERE)
def test_commands_that_only_read_run(command: str) -> None:
    run(ROOT, "bash", "-c", command)


def make_copy(folder: Path) -> Path:
    """Copy the project to `folder` with `STAGE` as its pipeline: two commits on main, and a git remote, origin."""
    copy_project(folder)
    run(folder, "git", "branch", "--move", "main")
    shutil.rmtree(folder / "data/demo")
    (folder / "dvc.lock").unlink()
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    # Without this, dvc looks for newer releases on the internet.
    run(folder, "dvc", "config", "core.check_update", "false")
    run(folder, "dvc", "repro")
    commit(folder, "Replace the pipeline")
    run(folder, "git", "init", "--quiet", "--bare", str(folder.parent / "origin"))
    run(folder, "git", "remote", "add", "origin", str(folder.parent / "origin"))
    run(folder, "git", "push", "--quiet", "origin", "main")
    return folder


def run_line(folder: Path, line: str) -> str:
    """Run a line of a shell in `folder` and return what it prints."""
    return run(folder, "bash", "-c", line)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # about 40 processes
def test_commands_of_dvc_run_in_order(tmp_path: Path) -> None:
    folder = make_copy(tmp_path / "copy")
    output = {}
    for command in RUN_IN_COPY:
        output[command] = run_line(folder, command.replace("/some/shared/folder", str(tmp_path / "store")))
        if command == "dvc queue start":
            wait_for_queue(folder)
    assert "up to date" in output["dvc repro"]
    assert "slow" in output["dvc exp show --only-changed --sort-by auroc.mean_15"]
    assert "auroc.mean_15" in output["dvc metrics diff"]
    assert "| params.yaml | lr" in output["python -m tools.pull_request main slow-branch"]
    assert "differences.png" in run(folder, "git", "ls-tree", "--name-only", "main")
    assert (folder / "dvc_plots/index.html").is_file()


def wait_for_queue(folder: Path) -> None:
    """Wait until the queue has finished, for up to five minutes."""
    for _ in range(150):
        status = run_line(folder, "dvc queue status")
        if "Running" not in status and "Queued" not in status:
            assert "Success" in status
            return
        time.sleep(2)
    pytest.fail(f"the queue has not finished:\n{status}")


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_readme_lists_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert not [page.name for page in PAGES if page != README and f"]({page.relative_to(ROOT)}" not in text]


def test_the_stages_in_dvc_yaml_are_short() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stages = re.search(r"^stages:\n(.*?)^[#\w]", text, re.MULTILINE | re.DOTALL)
    assert stages
    assert len(stages[1].splitlines()) <= 150


def slugs(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in slugs(file), target


def test_files_named_in_the_pages_exist() -> None:
    """Files of the code only: data, metrics and plots are written by a run."""
    pattern = r"\b(?:cxr|stages|tools|tests|benchmarks|docs|presets)/[\w/.-]+\.(?:py|md|yaml|html|sh)\b"
    named = {name for page in LINKED if page.name != "CHANGELOG.md" for name in re.findall(pattern, code_of(page))}
    assert not sorted(name for name in named if "NAME" not in name and not (ROOT / name).exists())


def test_names_in_the_pages_exist() -> None:
    """Names with an underscore in inline code must occur in the code: a rename must change the pages too."""
    folders = ("cxr", "stages", "tools", "benchmarks")
    code = "\n".join(file.read_text(encoding="utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py"))
    pattern = r"(?<!`)`([a-z.]*_[a-z_.]*)(?:\([^`]*\))?`"
    words = {word for page in PAGES for word in re.findall(pattern, page.read_text(encoding="utf-8"))}
    names = {part for word in words for part in word.split(".")}
    assert len(names) > 30
    assert not sorted(name for name in names if not re.search(rf"\b{name}\b", code))


@cache
def docstrings() -> dict[str, str]:
    """Return the docstrings of the project by their location."""
    found = {}
    for folder in ("cxr", "stages", "tools", "benchmarks", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    line = getattr(node, "lineno", 1)
                    found[f"{file.relative_to(ROOT)}:{line}"] = ast.get_docstring(node) or ""
    return found


def test_docstrings_start_with_what_the_code_does() -> None:
    questions = re.compile(r"(What|How|Whether|Which|Where|Who|Why)\b")
    assert not [where for where, text in docstrings().items() if questions.match(text)]
