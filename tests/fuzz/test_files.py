"""params.yaml, model files, checkpoints and the JSON files of evaluate with hostile values and mutated bytes."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cxr.core.params import read_params
from cxr.core.paths import METRICS
from cxr.evaluation.decisions import Decisions, fit_decisions
from cxr.evaluation.params import Threshold
from cxr.evaluation.schema import Metrics
from cxr.inference.params import TTA
from cxr.models.classifier import build_classifier
from cxr.models.model_file import load_model, read_description, save_model
from cxr.params import Params
from cxr.training.checkpoints import load_last, save_last
from tests.fixtures.networks import TINY
from tests.fixtures.project import ROOT
from tests.fuzz.harness import fuzz, outcome
from tests.fuzz.mutations import EDITS, HOSTILE, edited, mutated, mutated_values

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


PARAMS = (ROOT / "params.yaml").read_bytes()
YAML_TEXTS = [
    b"[" * 20_000, b"{a: " * 5_000, b"- " * 20_000, b"lr: 2020-99-99", b"lr: " + b"9" * 5_000,
    b"lr: 0x" + b"f" * 5_000, b"lr: 1:1:99999", b"lr: !!python/object/apply:os.getcwd []", b"lr: !!binary x",
    b"lr: !!timestamp x", b"lr: !!int x", b"lr: !!float x", b"lr: &a [*a]", b"&a lr: *a", b"lr: *b", b"? [lr]\n: 1",
    b"? {a: 1}\n: 1", b"<<: 1", b"<<: [*a]", b"%YAML 9.9\n---\nlr: 1", b"---\n---\n", b"\xff\xfe", b"\xef\xbb\xbf",
    b"lr: \"\\x\"", b"lr: |9\n x", b"\0", b"lr: .nan", b"1: 2", b"null: 2", b".nan: 2", b"[1, 2]: 3", b"", b"x",
    b"\t", b"lr: ''\n" * 9,
    b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: &d [*c, *c, *c]\nlr: [*d, *d, *d]\n",
]  # fmt: skip


@fuzz(80)
@given(file=mutated({"params": PARAMS, **{str(number): text for number, text in enumerate(YAML_TEXTS)}}))
def test_bytes_of_params(folder: Path, file: bytes) -> None:
    check_params(folder, file)


@fuzz(60)
@given(text=st.sampled_from(YAML_TEXTS), before=st.booleans())
def test_parameters_with_a_hostile_text(folder: Path, text: bytes, before: bool) -> None:
    check_params(folder, text + b"\n" + PARAMS if before else PARAMS + text)


@fuzz(100)
@given(values=mutated_values(yaml.safe_load(PARAMS)))
def test_values_of_params(folder: Path, values: Any) -> None:
    # JSON is YAML. It has no infinite numbers: they become unknown words.
    check_params(folder, json.dumps(values).encode())


def check_params(folder: Path, file: bytes) -> None:
    (folder / "params.yaml").write_bytes(file)
    params = outcome(read_params, Params, folder / "params.yaml")
    assert params is None or isinstance(params, Params)


@pytest.fixture(scope="module")
def model(folder: Path) -> bytes:
    """A valid model file."""
    torch.manual_seed(0)
    save_model(build_classifier(TINY), TINY, {"seed": 1, "patients": [1, 2]}, folder / "valid.safetensors")
    load_model(folder / "valid.safetensors")
    return (folder / "valid.safetensors").read_bytes()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a model file must not cause a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def check_model(path: Path) -> None:
    loaded = outcome(load_model, path)
    if loaded is not None:
        classifier, description = loaded
        assert all(
            torch.isfinite(tensor).all() for tensor in (*classifier.parameters(), classifier.mean, classifier.std)
        )
        assert (classifier.std > 0).all()
        size = description["image_size"]
        assert torch.isfinite(classifier(torch.zeros(1, 1, size, size))).all()


DESCRIPTION = {
    **TINY._asdict(), "classes": [], "mean": [0.5], "std": [0.2], "seed": 1, "patients": [1, 2],
    "params": {}, "best_epoch": 1, "val_auroc": 0.5, "untrained": ["Mass"],
}  # fmt: skip
NAMES = [
    *HOSTILE,
    "test_vit",
    "test_resnet.r160_in1k",
    "test_resnet.x",
    "hf_hub:a/b",
    "hf-hub:timm/resnet18",
    "file:///tmp/x",
    "resnet18",
]


@fuzz(50)
@given(changes=st.dictionaries(st.sampled_from(sorted(DESCRIPTION)), st.sampled_from(NAMES), min_size=1, max_size=2))
@pytest.mark.usefixtures("offline")
def test_the_description_of_a_model_file(folder: Path, model: bytes, changes: dict[str, Any]) -> None:
    path = folder / "described.safetensors"
    description = read_description(folder / "valid.safetensors")
    save_file(load_file(folder / "valid.safetensors"), path, {"cxr": json.dumps({**dict(description), **changes})})
    check_model(path)


@fuzz(50)
@given(changes=EDITS)
@pytest.mark.usefixtures("offline")
def test_bytes_of_a_model_file(folder: Path, model: bytes, changes: list[Any]) -> None:
    (folder / "edited.safetensors").write_bytes(edited(model, changes))
    check_model(folder / "edited.safetensors")


VALUES = [float("nan"), float("inf"), -float("inf"), 0.0, 1e38]


@fuzz(30)
@given(
    index=st.integers(0, 200), value=st.sampled_from(VALUES), change=st.sampled_from(["value", "shape", "type", "name"])
)
@pytest.mark.usefixtures("offline")
def test_tensors_of_a_model_file(folder: Path, model: bytes, index: int, value: float, change: str) -> None:
    tensors = load_file(folder / "valid.safetensors")
    name = sorted(tensors)[index % len(tensors)]
    if change == "value":
        tensors[name].view(-1)[:1] = value if tensors[name].is_floating_point() else -1
    elif change == "shape":
        tensors[name] = torch.zeros(2, 3)
    elif change == "type":
        tensors[name] = tensors[name].to(torch.float64)
    else:
        tensors[name + "x"] = tensors.pop(name)
    description = read_description(folder / "valid.safetensors")
    save_file(tensors, folder / "tensors.safetensors", {"cxr": json.dumps(dict(description))})
    check_model(folder / "tensors.safetensors")


@pytest.fixture(scope="module")
def decisions(folder: Path) -> Any:
    """The JSON values of a valid decisions.json."""
    random = np.random.default_rng(0)
    labels = (random.random((200, 15)) < 0.3).astype(np.uint8)
    tta = TTA(hflip=True, translate=0, scale=0, five_crop=0)
    rule = Threshold(rule="f1", sensitivity=0.9)
    fit_decisions(labels, random.random((200, 15)), rule, sha256={"a-1": "0" * 64}, tta=tta, synthetic=True).write(
        folder / "decisions.json"
    )
    return json.loads((folder / "decisions.json").read_text(encoding="utf-8"))


@fuzz(200)
@given(data=st.data())
def test_the_decisions(folder: Path, decisions: Any, data: st.DataObject) -> None:
    text = json.dumps(data.draw(mutated_values(decisions))).encode()
    (folder / "d.json").write_bytes(edited(text, data.draw(st.just([]) | EDITS)))
    read = outcome(Decisions.read, folder / "d.json")
    if read is not None:
        probabilities = np.linspace(0, 1, 5)[:, None].repeat(15, axis=1)
        calibrated = read.calibration.apply(probabilities)
        assert ((calibrated >= 0) & (calibrated <= 1)).all()
        assert not np.isinf(read.thresholds).any()
        read.write(folder / "again.json")


METRIC_TEXTS = {path.stem: path.read_bytes() for path in sorted((ROOT / METRICS).glob("*.json"))}
METRIC_CHANGES = {name: mutated_values(json.loads(text)) for name, text in METRIC_TEXTS.items()}


@fuzz(100)
@given(name=st.sampled_from(sorted(METRIC_TEXTS)), data=st.data(), edits=st.just([]) | EDITS)
def test_the_files_of_metrics(folder: Path, name: str, data: st.DataObject, edits: list[Any]) -> None:
    for other, text in METRIC_TEXTS.items():
        (folder / f"{other}.json").write_bytes(text)
    changed = json.dumps(data.draw(METRIC_CHANGES[name])).encode()
    (folder / f"{name}.json").write_bytes(edited(changed, edits))
    metrics = outcome(Metrics.read, folder)
    assert metrics is None or isinstance(metrics, Metrics)


@fuzz(100)
@given(changes=EDITS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_checkpoint(folder: Path, changes: list[Any]) -> None:
    save_last({"epoch": 1, "weights": {"a": torch.arange(8.0)}}, folder)
    path = folder / "last.pt"
    path.write_bytes(edited(path.read_bytes(), changes))
    state = outcome(load_last, folder)
    assert state is None or isinstance(state, dict)
