import json
import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.model_file import load_model, save_model
from tests.fixtures.networks import TINY


def test_a_loaded_network_predicts_the_same_and_has_a_description(tmp_path: Path) -> None:
    torch.manual_seed(2)
    classifier = build_classifier(TINY).eval()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_model(classifier, TINY, {"seed": 3, "params": {"lr": 0.1}, "best_epoch": 4, "val_auroc": 0.8}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded, description = load_model(paths[0])
    pixels = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(pixels), classifier(pixels))
    assert description["model"] == "test_resnet"
    assert description["classes"] == list(CLASSES)
    assert description["params"] == {"lr": 0.1}


def test_a_file_of_another_kind_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="not a model file"):
        load_model(path)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="not a model file"):
        load_model(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not written by this project"):
        load_model(path)
    save_file(
        {"weight": torch.zeros(1)},
        path,
        {"cxr": json.dumps({**TINY._asdict(), "classes": ["Cat"], "mean": [0.0], "std": [1.0]})},
    )
    with pytest.raises(InputError, match="trained on other classes: Cat"):
        load_model(path)


CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "hub": ({"model": "hf-hub:someone/model"}, r"model: .*pattern"),
    "folder": ({"model": "local-dir:/tmp/model"}, r"model: .*pattern"),
    "newline": ({"model": "test_resnet\n"}, r"model: .*pattern"),
    "unknown model": ({"model": "test_resnett"}, r"no model 'test_resnett'; did you mean test_resnet"),
    "unknown tag": ({"model": "test_resnet.nowhere"}, "Invalid pretrained tag"),
    "model of another type": ({"model": 5}, "model: .*string"),
    "channels": ({"in_chans": 2}, "in_chans: .*1 or 3"),
    "size": ({"image_size": 100_000}, "image_size: .*less than or equal to 1024"),
    "fraction": ({"image_size": 32.5}, "image_size: .*integer"),
    "pooling": ({"attention_pool": "no"}, "attention_pool: .*boolean"),
    "classes": ({"classes": CLASSES[:14]}, "classes: .*trained on other classes: Atelectasis"),
    "std of 0": ({"std": [0]}, r"std\.0: .*greater than 0"),
    "infinite mean": ({"mean": [float("inf")]}, r"mean\.0: .*finite"),
    "two means": ({"mean": [0.1, 0.2]}, "mean and std must have 1 values"),
    "patients": ({"patients": ["7"]}, r"patients\.0: .*integer"),
    "untrained": ({"untrained": ["Cat"]}, r"untrained\.0: .*Atelectasis"),
    "nested": ({"params": json.loads("[" * 500 + "]" * 500)}, "invalid description"),
    "unknown entry": ({"colour": 1}, "colour: .*not permitted"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_invalid_description_is_refused_before_timm_receives_it(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, message = CHANGES[case]
    save_model(build_classifier(TINY), TINY, changes, tmp_path / "model.safetensors")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was called"))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("text", ["null", "[]", "", "{", "[" * 100_000, '{"seed": ' + "1" * 5000 + "}"])
def test_a_description_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors", {"cxr": text})
    with pytest.raises(InputError, match=r"model\.safetensors has an invalid description"):
        load_model(tmp_path / "model.safetensors")


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"not a model file: .* not a regular file"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    classifier = build_classifier(TINY)
    classifier.get_parameter("backbone.fc.weight").data[3, 5] = value
    save_model(classifier, TINY, {}, tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=r"weights of test_resnet: backbone\.fc\.weight has values that are nan or inf"
    ):
        load_model(tmp_path / "model.safetensors")


def test_finite_weights_with_an_infinite_output_are_refused(tmp_path: Path) -> None:
    classifier = build_classifier(TINY)
    classifier.get_buffer("backbone.bn1.running_var").fill_(-1)
    save_model(classifier, TINY, {}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="the logits of a black image are not finite"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.fc.bias": None}, r"backbone\.fc\.bias is missing"),
        ({"extra": torch.zeros(1)}, "extra is unknown"),
        ({"backbone.fc.bias": torch.zeros(14)}, r"backbone\.fc\.bias is float32 \[14\] instead of float32 \[15\]"),
        ({"backbone.fc.bias": torch.zeros(15).half()}, r"is float16 \[15\] instead of float32 \[15\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(build_classifier(TINY), TINY, {}, path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = {name: tensor for name, tensor in (load_file(path) | change).items() if tensor is not None}
    save_file(state, path, metadata)
    with pytest.raises(InputError, match=message):
        load_model(path)


@pytest.mark.parametrize("size", [0, 4, 100, -1, -1000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    save_model(build_classifier(TINY), TINY, {}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="not a model file"):
        load_model(path)


def test_a_loaded_network_uses_the_normalisation_in_its_file(tmp_path: Path) -> None:
    classifier = build_classifier(TINY).eval()
    classifier.mean.fill_(0.1)
    save_model(classifier, TINY, {}, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert loaded.mean.item() == pytest.approx(0.1)


def test_a_description_without_weights_is_refused(tmp_path: Path) -> None:
    classifier = build_classifier(TINY)
    save_model(classifier, TINY, {}, tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file({"weight": torch.zeros(1)}, tmp_path / "cut.safetensors", metadata)
    with pytest.raises(InputError, match="does not hold the weights of test_resnet"):
        load_model(tmp_path / "cut.safetensors")


def test_an_attention_network_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    architecture = Architecture("test_resnet", 1, 32, attention_pool=True)
    classifier = build_classifier(architecture).eval()
    assert classifier.attention is not None
    torch.nn.init.normal_(classifier.attention.attention.weight)
    save_model(classifier, architecture, {}, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    pixels = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(pixels), classifier(pixels))
