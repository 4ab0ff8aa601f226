import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, AttentionHead, build_classifier, check_model_name
from cxr.models.model_file import load_model, save_model
from cxr.models.weights import weights_file

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
    classifier = build_classifier(Architecture(model, channels, 48)).eval()
    assert classifier(torch.rand(2, 1, 48, 48)).shape == (2, len(CLASSES))


def test_three_channels_are_the_gray_image_normalised_as_the_weights_expect() -> None:
    classifier = build_classifier(Architecture("test_resnet", 3, 32)).eval()
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
    backbone = build_classifier(Architecture("test_resnet", 3, 32), path).backbone
    torch.manual_seed(5)
    source = timm.create_model("test_resnet", num_classes=1000).state_dict()
    for name, tensor in backbone.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, source[name]), name


def test_one_channel_sums_the_pretrained_kernel(tmp_path: Path) -> None:
    path = imagenet_like(tmp_path)
    one = build_classifier(Architecture("test_resnet", 1, 32), path).backbone.state_dict()["conv1.0.weight"]
    three = build_classifier(Architecture("test_resnet", 3, 32), path).backbone.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(one, three.sum(dim=1, keepdim=True))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = imagenet_like(tmp_path, "test_efficientnet")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        build_classifier(TINY, other)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        build_classifier(TINY, tmp_path / "broken.safetensors")


def test_missing_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*resnet18\.safetensors; .*weights_dir.*none"):
        weights_file("resnet18", tmp_path)


def test_an_unknown_network_is_named_with_close_matches() -> None:
    with pytest.raises(InputError, match=r"'efficientnetb3'; did you mean .*efficientnet_b3"):
        check_model_name("efficientnetb3")
    check_model_name("efficientnet_b3")


def test_a_saved_network_describes_itself_and_predicts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(2)
    classifier = build_classifier(TINY).eval()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_model(classifier, TINY, {"seed": 3, "params": {"lr": 0.1}, "best_epoch": 4, "val_auroc": 0.8}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded, about = load_model(paths[0])
    pixels = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(pixels), classifier(pixels))
    assert about["model"] == "test_resnet"
    assert about["classes"] == list(CLASSES)
    assert about["params"] == {"lr": 0.1}


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
    with pytest.raises(InputError, match="other classes: Cat"):
        load_model(path)


def test_a_loaded_network_normalises_as_its_file_says(tmp_path: Path) -> None:
    classifier = build_classifier(TINY).eval()
    classifier.mean.fill_(0.1)
    save_model(classifier, TINY, {}, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert loaded.mean.item() == pytest.approx(0.1)


def test_a_description_without_weights_is_refused(tmp_path: Path) -> None:
    classifier = build_classifier(TINY)
    save_model(classifier, TINY, {}, tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        description = file.metadata()
    save_file({"weight": torch.zeros(1)}, tmp_path / "cut.safetensors", description)
    with pytest.raises(InputError, match="does not hold the weights of test_resnet"):
        load_model(tmp_path / "cut.safetensors")


def test_an_unknown_tag_and_a_network_too_deep_are_named() -> None:
    with pytest.raises(InputError, match="Invalid pretrained tag"):
        check_model_name("efficientnet_b3.foo")
    with pytest.raises(InputError, match="cannot build inception_v3 with 1 channels at 32 px"):
        build_classifier(Architecture("inception_v3", 1, 32))


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_attention_starts_as_average_pooling_and_says_where_it_looks(model: str) -> None:
    classifier = build_classifier(Architecture(model, 1, 64, attention_pool=True)).eval()
    pixels = torch.rand(2, 1, 64, 64)
    maps = classifier.attention_maps(pixels)
    assert maps.shape[:2] == (2, len(CLASSES))
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, len(CLASSES)))
    torch.testing.assert_close(maps, maps.mean(dim=(2, 3), keepdim=True).expand_as(maps))
    assert classifier.attention is not None
    seen: list[torch.Tensor] = []
    classifier.attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = classifier(pixels)
    torch.testing.assert_close(logits, classifier.attention.logits(seen[0].mean(dim=1)))


def test_the_attention_of_a_class_finds_the_place_that_its_weights_ask_for() -> None:
    """An attention that asks for bright places finds the one bright patch, and the class's logit is that patch's."""
    classifier = build_classifier(Architecture("test_resnet", 1, 64, attention_pool=True)).eval()
    head = AttentionHead(1, 0)
    with torch.no_grad():
        head.attention.weight[3] = 50.0
        head.logits.weight[:] = 1.0
        head.logits.bias[:] = 0.0
    brightness = torch.nn.AvgPool2d(8)
    classifier.backbone, classifier.attention = brightness, head
    classifier.mean.zero_()
    classifier.std.fill_(1)
    pixels = torch.zeros(1, 1, 64, 64)
    pixels[:, :, 16:24, 40:48] = 1
    with torch.no_grad():
        maps, logits = classifier.attention_maps(pixels), classifier(pixels)
    assert maps[0, 3, 2, 5] > 0.99
    assert maps[0, 4, 2, 5].item() == pytest.approx(1 / 64)
    assert logits[0, 3].item() == pytest.approx(1, abs=0.01)
    assert logits[0, 4].item() == pytest.approx(1 / 64)


def test_an_attention_network_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    architecture = Architecture("test_resnet", 1, 32, attention_pool=True)
    classifier = build_classifier(architecture).eval()
    assert classifier.attention is not None
    torch.nn.init.normal_(classifier.attention.attention.weight)
    save_model(classifier, architecture, {}, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    pixels = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(pixels), classifier(pixels))


def test_attention_starts_from_pretrained_weights(tmp_path: Path) -> None:
    path = imagenet_like(tmp_path)
    plain, attending = (build_classifier(Architecture("test_resnet", 3, 32, on), path) for on in (False, True))
    there = plain.backbone.state_dict()
    assert all(torch.equal(there[name], tensor) for name, tensor in attending.backbone.state_dict().items())


def test_a_network_without_attention_has_no_map() -> None:
    with pytest.raises(ValueError, match="no attention"):
        build_classifier(TINY).attention_maps(torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize("attention", [False, True])
def test_dropout_acts_in_training_only(attention: bool) -> None:
    classifier = build_classifier(Architecture("test_resnet", 1, 32, attention), drop_rate=0.5)
    pixels = torch.rand(8, 1, 32, 32)
    for layer in classifier.backbone.modules():
        layer.eval()  # batch normalisation would differ as well
    classifier.backbone.training = True
    assert not torch.equal(classifier(pixels), classifier(pixels))
    classifier.eval()
    assert torch.equal(classifier(pixels), classifier(pixels))


def test_blocks_are_skipped_in_training_only() -> None:
    classifier = build_classifier(Architecture("test_convnext", 1, 32), drop_path_rate=0.9)
    pixels = torch.rand(8, 1, 32, 32)
    assert not torch.equal(classifier(pixels), classifier(pixels))
    classifier.eval()
    assert torch.equal(classifier(pixels), classifier(pixels))
    plain = build_classifier(Architecture("test_convnext", 1, 32))
    assert torch.equal(plain(pixels), plain(pixels))


def test_what_a_network_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match=r"densenet121 .* drop_path"):
        build_classifier(Architecture("densenet121", 1, 32), drop_path_rate=0.1)
    with pytest.raises(InputError, match="attention: it has no square feature map"):
        build_classifier(Architecture("volo_d1_224", 1, 224, attention_pool=True))


def test_the_bias_of_both_heads_starts_where_it_is_told() -> None:
    classifier = build_classifier(Architecture("deit_tiny_distilled_patch16_224", 1, 224))
    start = torch.linspace(-3, 1, len(CLASSES))
    classifier.start_bias(start)
    assert len(classifier.head_layers()) == 2
    assert all(torch.equal(layer.bias, start) for layer in classifier.head_layers())  # type: ignore[arg-type]
