from pathlib import Path

import pytest
import timm
import torch

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.models.classifier import Architecture, AttentionHead, build_classifier, check_model_name
from tests.fixtures.networks import MODELS, TINY, write_pretrained


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_model_maps_gray_images_to_15_logits(model: str, channels: int) -> None:
    classifier = build_classifier(Architecture(model, channels, 48)).eval()
    assert classifier(torch.rand(2, 1, 48, 48)).shape == (2, len(CLASSES))


def test_each_of_three_channels_is_the_gray_image_normalised_for_the_weights() -> None:
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
    path = write_pretrained(tmp_path)
    torch.manual_seed(1)
    backbone = build_classifier(Architecture("test_resnet", 3, 32), path).backbone
    torch.manual_seed(5)
    source = timm.create_model("test_resnet", num_classes=1000).state_dict()
    for name, tensor in backbone.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, source[name]), name


def test_one_channel_sums_the_pretrained_kernel(tmp_path: Path) -> None:
    path = write_pretrained(tmp_path)
    one = build_classifier(Architecture("test_resnet", 1, 32), path).backbone.state_dict()["conv1.0.weight"]
    three = build_classifier(Architecture("test_resnet", 3, 32), path).backbone.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(one, three.sum(dim=1, keepdim=True))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = write_pretrained(tmp_path, "test_efficientnet")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        build_classifier(TINY, other)
    (tmp_path / "broken.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(InputError, match="do not fit test_resnet"):
        build_classifier(TINY, tmp_path / "broken.safetensors")


def test_an_unknown_network_is_named_with_close_matches() -> None:
    with pytest.raises(InputError, match=r"'efficientnetb3'; did you mean .*efficientnet_b3"):
        check_model_name("efficientnetb3")
    check_model_name("efficientnet_b3")


def test_an_unknown_tag_and_a_network_too_deep_are_named() -> None:
    with pytest.raises(InputError, match="Invalid pretrained tag"):
        check_model_name("efficientnet_b3.foo")
    with pytest.raises(InputError, match="cannot build inception_v3 with 1 channels at 32 px"):
        build_classifier(Architecture("inception_v3", 1, 32))


@pytest.mark.parametrize("model", MODELS)
def test_attention_starts_as_average_pooling(model: str) -> None:
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


def test_the_attention_of_a_class_follows_its_weights() -> None:
    """Attention to brightness selects the one bright patch, and the logit of the class is that of the patch."""
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


def test_pretrained_weights_are_loaded_under_an_attention_head(tmp_path: Path) -> None:
    path = write_pretrained(tmp_path)
    plain, attending = (build_classifier(Architecture("test_resnet", 3, 32, on), path) for on in (False, True))
    expected = plain.backbone.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in attending.backbone.state_dict().items())


def test_a_network_without_attention_has_no_attention_maps() -> None:
    with pytest.raises(ValueError, match="no attention"):
        build_classifier(TINY).attention_maps(torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize("attention", [False, True])
def test_dropout_acts_in_training_only(attention: bool) -> None:
    classifier = build_classifier(Architecture("test_resnet", 1, 32, attention), drop_rate=0.5)
    pixels = torch.rand(8, 1, 32, 32)
    for layer in classifier.backbone.modules():
        layer.eval()  # batch normalisation also differs between the modes
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


def test_options_that_a_model_does_not_support_are_named() -> None:
    with pytest.raises(InputError, match=r"densenet121 .* drop_path"):
        build_classifier(Architecture("densenet121", 1, 32), drop_path_rate=0.1)
    with pytest.raises(InputError, match="attention_pool: the model has no square feature map"):
        build_classifier(Architecture("volo_d1_224", 1, 224, attention_pool=True))


def test_the_bias_of_both_heads_is_set() -> None:
    classifier = build_classifier(Architecture("deit_tiny_distilled_patch16_224", 1, 224))
    start = torch.linspace(-3, 1, len(CLASSES))
    classifier.init_head_bias(start)
    assert len(classifier.head_layers()) == 2
    assert all(torch.equal(layer.bias, start) for layer in classifier.head_layers())  # type: ignore[arg-type]


def test_no_activation_works_in_place() -> None:
    for model in ("test_efficientnet", "resnet10t", "test_vit"):
        classifier = build_classifier(Architecture(model, 1, 160))
        assert not [name for name, module in classifier.named_modules() if getattr(module, "inplace", False) is True]


def test_in_place_activations_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for disable in (True, False):
        if not disable:
            monkeypatch.setattr("cxr.models.classifier._disable_inplace", lambda _: None)
        torch.manual_seed(1)
        classifier = build_classifier(Architecture("test_efficientnet", 1, 64))
        in_place = any(getattr(module, "inplace", False) is True for module in classifier.modules())
        assert in_place is not disable
        optimizer = torch.optim.AdamW(classifier.parameters(), 0.01)
        for pixels in torch.rand(3, 4, 1, 64, 64):
            optimizer.zero_grad()
            classifier(pixels).square().sum().backward()
            optimizer.step()
        states.append(classifier.state_dict())
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())
