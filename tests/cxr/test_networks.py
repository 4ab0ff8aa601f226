import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cxr import networks
from cxr.errors import InputError
from cxr.findings import CLASSES
from cxr.networks import Architecture

TINY = Architecture("test_resnet", 1, 32)


def imagenet_like(folder: Path, model: str = "test_resnet") -> Path:
    """A file as timm's pretrained weights come: three channels, 1,000 classes."""
    torch.manual_seed(5)
    path = folder / f"{model}.safetensors"
    save_file(timm.create_model(model, num_classes=1000).state_dict(), path)
    return path


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_network_takes_gray_pixels_and_gives_15_logits(model: str, channels: int) -> None:
    classifier = networks.build(Architecture(model, channels, 48)).eval()
    assert classifier(torch.rand(2, 1, 48, 48)).shape == (2, len(CLASSES))


def test_three_channels_are_the_gray_image_normalised_as_the_weights_expect() -> None:
    classifier = networks.build(Architecture("test_resnet", 3, 32)).eval()
    seen: list[torch.Tensor] = []
    classifier.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.rand(2, 1, 32, 32)
    classifier(pixels)
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None
    for channel, (mean, std) in enumerate(zip(config.mean, config.std, strict=True)):
        torch.testing.assert_close(seen[0][:, channel], (pixels[:, 0] - mean) / std)


def test_pretrained_weights_are_loaded_all_but_the_last_layer(tmp_path: Path) -> None:
    path = imagenet_like(tmp_path)
    torch.manual_seed(1)
    backbone = networks.build(Architecture("test_resnet", 3, 32), path).backbone
    torch.manual_seed(5)
    source = timm.create_model("test_resnet", num_classes=1000).state_dict()
    for name, tensor in backbone.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, source[name]), name


def test_one_channel_sums_the_pretrained_kernel(tmp_path: Path) -> None:
    path = imagenet_like(tmp_path)
    one = networks.build(Architecture("test_resnet", 1, 32), path).backbone.state_dict()["conv1.0.weight"]
    three = networks.build(Architecture("test_resnet", 3, 32), path).backbone.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(one, three.sum(dim=1, keepdim=True))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = imagenet_like(tmp_path, "test_efficientnet")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        networks.build(TINY, other)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        networks.build(TINY, tmp_path / "broken.safetensors")


def test_missing_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*resnet18\.safetensors; .*weights_dir.*none"):
        networks.weights_file("resnet18", tmp_path)


def test_an_unknown_network_is_named_with_close_matches() -> None:
    with pytest.raises(InputError, match=r"'efficientnetb3'; did you mean .*efficientnet_b3"):
        networks.check_name("efficientnetb3")
    networks.check_name("efficientnet_b3")


def test_a_saved_network_describes_itself_and_predicts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(2)
    classifier = networks.build(TINY).eval()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        networks.save(classifier, TINY, {"seed": 3, "params": {"lr": 0.1}, "best_epoch": 4, "val_auroc": 0.8}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded, about = networks.load(paths[0])
    pixels = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(pixels), classifier(pixels))
    assert about["model"] == "test_resnet"
    assert about["classes"] == list(CLASSES)
    assert about["params"] == {"lr": 0.1}


def test_a_file_of_another_kind_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="not a model file"):
        networks.load(path)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="not a model file"):
        networks.load(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not written by this project"):
        networks.load(path)
    save_file(
        {"weight": torch.zeros(1)},
        path,
        {"cxr": json.dumps({**TINY._asdict(), "classes": ["Cat"], "mean": [0], "std": [1]})},
    )
    with pytest.raises(InputError, match="other classes: Cat"):
        networks.load(path)


def test_a_loaded_network_normalises_as_its_file_says(tmp_path: Path) -> None:
    classifier = networks.build(TINY).eval()
    classifier.mean.fill_(0.1)
    networks.save(classifier, TINY, {}, tmp_path / "model.safetensors")
    loaded, _ = networks.load(tmp_path / "model.safetensors")
    assert loaded.mean.item() == pytest.approx(0.1)


def test_a_description_without_weights_is_refused(tmp_path: Path) -> None:
    classifier = networks.build(TINY)
    networks.save(classifier, TINY, {}, tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        description = file.metadata()
    save_file({"weight": torch.zeros(1)}, tmp_path / "cut.safetensors", description)
    with pytest.raises(InputError, match="does not hold the weights of test_resnet"):
        networks.load(tmp_path / "cut.safetensors")


def test_an_unknown_tag_and_a_network_too_deep_are_named() -> None:
    with pytest.raises(InputError, match="Invalid pretrained tag"):
        networks.check_name("efficientnet_b3.foo")
    with pytest.raises(InputError, match="cannot build inception_v3 with 1 channels at 32 px"):
        networks.build(Architecture("inception_v3", 1, 32))
