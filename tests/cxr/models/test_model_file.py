import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

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
        {"cxr": json.dumps({**TINY._asdict(), "classes": ["Cat"], "mean": [0], "std": [1]})},
    )
    with pytest.raises(InputError, match="trained on other classes: Cat"):
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
