import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr.models.members import Member
from cxr.training.fingerprint import common_dependencies, loaded_code, member_dependencies, member_params
from tests.fixtures.planted import train_params, write_planted
from tests.fixtures.project import ROOT, imported_files

# Packages that training does not depend on; of evaluation it uses one module.
UNRELATED = ("cxr/reporting/", "cxr/datasets/", "cxr/images/", "cxr/inference/", "tools/", "tests/")


@pytest.fixture(scope="module")
def code_of_train() -> set[str]:
    """The files that a process has loaded after importing the stage train, as the fingerprint lists them."""
    program = (
        "import json, stages.train; from cxr.training.fingerprint import loaded_code; print(json.dumps(loaded_code()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_the_code_of_train_is_what_it_imports(code_of_train: set[str]) -> None:
    expected = {str(path.relative_to(ROOT)) for path in imported_files(ROOT / "stages/train.py")}
    assert {"stages/train.py", "cxr/training/trainer.py", "cxr/models/classifier.py", "cxr/core/files.py"} <= expected
    assert code_of_train == expected | {"stages/__init__.py"}


def test_the_code_of_train_excludes_other_packages(code_of_train: set[str]) -> None:
    assert not [name for name in code_of_train if name.startswith(UNRELATED)]
    modules_of_evaluation = {name for name in code_of_train if name.startswith("cxr/evaluation/")}
    assert modules_of_evaluation == {"cxr/evaluation/__init__.py", "cxr/evaluation/metrics.py"}


def test_editing_a_module_at_any_depth_changes_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    path = tmp_path / "cxr/models/deeper/edited.py"
    path.parent.mkdir(parents=True)
    for text in ("VALUE = 1\n", "VALUE = 2\n"):
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("edited", path)
        assert spec is not None
        monkeypatch.setitem(sys.modules, "edited", importlib.util.module_from_spec(spec))
        hashes.append(loaded_code(tmp_path))
    assert [set(names) for names in hashes] == [{"cxr/models/deeper/edited.py"}] * 2
    assert hashes[0] != hashes[1]


def test_all_members_depend_on_parameters_data_code_device_and_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted(tmp_path, images=20)
    monkeypatch.chdir(tmp_path)
    first = common_dependencies(train_params(), torch.device("cpu"))
    assert set(first) == {"params", "data", "code", "device", "libraries", "cpu"}
    assert set(first["data"]) == {"data/sample.csv", "data/split.csv", "data/images.npy"}
    assert first["code"] == loaded_code()
    (tmp_path / "data/images.npy").write_bytes(b"other images")
    assert common_dependencies(train_params(), torch.device("cpu"))["data"] != first["data"]


def test_all_members_depend_on_the_settings_of_the_cpus_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted(tmp_path, images=20)
    monkeypatch.chdir(tmp_path)
    found = []
    for value in ("COMPATIBLE", "AVX2"):
        monkeypatch.setenv("MKL_CBWR", value)
        found.append(common_dependencies(train_params(), torch.device("cpu")))
    assert found[0] != found[1]


def test_a_member_depends_on_its_model_seed_and_initial_weights(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"a")
    first = member_dependencies(Member("net", 1), tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"b")
    assert member_dependencies(Member("net", 1), tmp_path / "weights") != first
    assert member_dependencies(Member("net", 1), None) == {"model": "net", "seed": 1, "weights": None}


def test_the_list_of_members_and_the_folder_of_weights_do_not_matter() -> None:
    params = member_params(train_params())
    assert params == member_params(train_params(models=["other"], seeds=[5, 6], weights_dir="elsewhere"))
    assert params != member_params(train_params(lr=0.5))
