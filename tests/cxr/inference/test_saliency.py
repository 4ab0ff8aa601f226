from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.inference import saliency
from cxr.inference.saliency import METHODS, Method
from cxr.models.classifier import Architecture, Classifier, build_classifier
from cxr.models.image_store import ImageStore

SIDE, GRID = 96, 12
BRIGHT, DARK, BLIND = 0, 1, 2  # classes: a bright blob speaks for the first; nothing speaks for the third
GRADIENTS = {name: method for name, method in METHODS.items() if name != "attention"}
LAYOUTS = ("NCHW", "NHWC", "tokens", "tokens after a class token")


class Laid(nn.Module):
    """Two features of each 8 x 8 patch, how bright and how dark it is, in one of timm's layouts."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        bright = functional.avg_pool2d(images, SIDE // GRID)
        planes = torch.cat([bright, 1 - bright], dim=1)
        if self.layout == "NCHW":
            return planes
        if self.layout == "NHWC":
            return planes.permute(0, 2, 3, 1)
        tokens = planes.flatten(2).transpose(1, 2)
        return tokens if self.layout == "tokens" else torch.cat([7 + 0 * tokens[:, :1], tokens], dim=1)


class Planted(nn.Module):
    """A backbone as timm's, with weights that are known: the linear head on the mean patch."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Laid(layout), nn.ReLU(inplace=True))  # as VGG's: it overwrites what it is given
        self.head = nn.Linear(2, len(CLASSES))
        self.output_fmt = "NHWC" if layout == "NHWC" else "NCHW"
        self.num_prefix_tokens = int(layout == LAYOUTS[-1])
        self.feature_info = [{"module": f"blocks.{block}", "reduction": SIDE // GRID} for block in (0, 1)]
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[[BRIGHT, DARK], [0, 1]] = 1

    def forward_features(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        features = self.forward_features(images)
        if features.ndim == 3:
            means = features[:, self.num_prefix_tokens :].mean(dim=1)
        else:
            means = features.mean(dim=(1, 2) if self.output_fmt == "NHWC" else (2, 3))
        logits: Tensor = self.head(means)
        return logits


def planted(layout: str = "NCHW") -> Classifier:
    return Classifier(Planted(layout), 1, [0.0], [1.0])


def blobs() -> Tensor:
    """Three black images, each with a white patch of one position elsewhere."""
    pixels = torch.zeros(3, 1, SIDE, SIDE)
    for image, (row, column) in enumerate(((1, 2), (5, 9), (10, 0))):
        pixels[image, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    return pixels


def all_of(column: int, images: int = 3) -> Tensor:
    return torch.full((images,), column)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", GRADIENTS.values(), ids=GRADIENTS)
def test_the_map_lies_on_the_blob_that_alone_decides_a_class(method: Method, layout: str) -> None:
    pixels = blobs()
    found = method(planted(layout), pixels, all_of(BRIGHT))
    assert found.shape == (3, SIDE, SIDE)
    assert found.dtype == torch.float32
    for map_, image in zip(found, pixels[:, 0], strict=True):
        assert (map_[image == 1] >= map_.max() / 4).all()
        assert image[map_ == map_.max()].all()
        reach = functional.max_pool2d(image[None], 17, 1, 8)[0]  # a position away, which the enlargement blurs over
        assert (map_[reach == 0] == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", GRADIENTS.values(), ids=GRADIENTS)
def test_a_class_without_weights_has_a_map_of_zeros(method: Method, layout: str) -> None:
    assert (method(planted(layout), blobs(), all_of(BLIND)) == 0).all()


def test_each_image_is_mapped_for_its_own_class() -> None:
    classifier, pixels = planted(), blobs()
    mixed = saliency.grad_cam(classifier, pixels, torch.tensor([BRIGHT, DARK, BLIND]))
    for image, column in enumerate((BRIGHT, DARK, BLIND)):
        assert torch.equal(mixed[image], saliency.grad_cam(classifier, pixels, all_of(column))[image])
    assert mixed[1][blobs()[1, 0] == 1].mean() < mixed[1].mean()


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_mambaout"])
def test_grad_cam_is_what_each_position_adds_to_the_logit(model: str) -> None:
    """With average pooling and a linear head: ReLU(Σ w A) / positions, and for NHWC its head's normalisation beside."""
    torch.manual_seed(3)
    classifier = build_classifier(Architecture(model, 1, 64)).eval()
    backbone: Any = classifier.backbone
    if model == "test_mambaout":
        backbone.head = nn.Linear(backbone.num_features, len(CLASSES))
        backbone.forward_head = lambda features: backbone.head(features.mean(dim=(1, 2)))
    pixels, column = torch.rand(4, 1, 64, 64), 6
    with torch.no_grad():
        features = backbone.forward_features((pixels - classifier.mean) / classifier.std)
        planes = features.permute(0, 3, 1, 2) if model == "test_mambaout" else features
        head = backbone.head if model == "test_mambaout" else backbone.get_classifier()
        expected = torch.einsum("k,bkhw->bhw", head.weight[column], planes).relu() / planes[0, 0].numel()
    found = saliency.grad_cam(classifier, pixels, all_of(column, 4))
    torch.testing.assert_close(found, saliency.upsample(expected, pixels.shape[-1]), rtol=1e-4, atol=1e-7)


def by_the_whole_graph(classifier: Classifier, pixels: Tensor, column: int, layer: str) -> tuple[Tensor, Tensor]:
    """Features and gradients, one image at a time, with everything recorded."""
    kept: list[Tensor] = []
    handle = classifier.backbone.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    pairs = []
    for image in pixels:
        logit = classifier.eval()(image[None])[0, column]
        pairs.append((kept[-1].detach()[0], torch.autograd.grad(logit, kept[-1])[0][0]))
    handle.remove()
    features, gradients = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
    return features, gradients


def test_layer_cam_weighs_each_position_by_its_own_gradient() -> None:
    torch.manual_seed(4)
    classifier = build_classifier(Architecture("test_resnet", 1, 96))
    pixels = torch.rand(3, 1, 96, 96)
    features, gradients = by_the_whole_graph(classifier, pixels, 2, "layer2")  # 8 times smaller than the image
    expected = saliency.upsample((gradients.relu() * features).sum(dim=1).relu(), pixels.shape[-1])
    torch.testing.assert_close(saliency.layer_cam(classifier, pixels, all_of(2)), expected, rtol=1e-4, atol=1e-8)
    assert saliency.layer_cam_side(classifier, 96) == features.shape[-1] == 12


@pytest.mark.parametrize("model", ["test_vit", "test_vit2", "test_vit3"])  # class token, average, attention pooling
def test_transformers_are_mapped_before_their_last_block(model: str) -> None:
    torch.manual_seed(5)
    classifier = build_classifier(Architecture(model, 1, 64))
    pixels = torch.rand(2, 1, 64, 64)
    blocks: Any = classifier.backbone.blocks
    features, gradients = by_the_whole_graph(classifier, pixels, 1, f"blocks.{len(blocks) - 2}")
    positions, weights = features[:, 1:], gradients[:, 1:].mean(dim=1, keepdim=True)
    expected = (weights * positions).sum(dim=2).relu().unflatten(1, (4, 4))
    found = saliency.grad_cam(classifier, pixels, all_of(1, 2))
    assert (found > 0).any()
    torch.testing.assert_close(found, saliency.upsample(expected, pixels.shape[-1]), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "densenet121"])
@pytest.mark.parametrize("method", GRADIENTS.values(), ids=GRADIENTS)
def test_a_network_is_left_as_it_was(method: Method, model: str) -> None:
    torch.use_deterministic_algorithms(mode=True)
    try:
        classifier = build_classifier(Architecture(model, 1, 64)).eval()
        pixels = torch.rand(2, 1, 64, 64)
        logits = classifier(pixels)
        first = method(classifier, pixels, all_of(3, 2))
        assert (first >= 0).all()
        assert not first.requires_grad
        assert torch.equal(method(classifier, pixels, all_of(3, 2)), first)
        assert torch.equal(classifier(pixels), logits)
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert logits.requires_grad
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert "forward_features" not in vars(classifier.backbone)


class OneLess(nn.Module):
    """143 tokens do not form a square."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:]


@pytest.mark.parametrize("method", GRADIENTS.values(), ids=GRADIENTS)
def test_a_network_without_a_grid_is_named(method: Method) -> None:
    classifier = planted("tokens")
    backbone: Any = classifier.backbone
    backbone.blocks.append(OneLess())
    backbone.feature_info = [{"module": "blocks.2", "reduction": 8}]
    with pytest.raises(InputError, match="Planted"):
        method(classifier, blobs(), all_of(BRIGHT))
    assert torch.is_grad_enabled()


def test_maps_come_in_the_order_of_the_images_whatever_the_batch() -> None:
    images = (255 * blobs()[:, 0]).to(torch.uint8).numpy()
    pixels = ImageStore(images, np.array([2, 0, 1, 0]), torch.device("cpu"))
    found = list(
        saliency.saliency_maps(saliency.grad_cam, planted(), pixels, np.array([BRIGHT, BRIGHT, DARK, BLIND]), 3)
    )
    expected = saliency.grad_cam(planted(), blobs()[[2, 0, 1, 0]], torch.tensor([BRIGHT, BRIGHT, DARK, BLIND]))
    np.testing.assert_allclose(np.stack(found), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_a_network_with_attention_has_its_own_map_and_the_others(model: str) -> None:
    torch.manual_seed(4)
    attending = build_classifier(Architecture(model, 1, 64, attention_pool=True))
    assert attending.attention is not None
    nn.init.normal_(attending.attention.attention.weight)
    pixels, columns = torch.rand(3, 1, 64, 64), torch.tensor([2, 0, 14])
    with torch.no_grad():
        weights = attending.eval().attention_maps(pixels)
    found = saliency.attention_map(attending, pixels, columns)
    for image, column in enumerate(columns):
        expected = saliency.upsample(weights[image, column][None], 64)[0]
        torch.testing.assert_close(found[image], expected)
    assert all(method(attending, pixels, columns).shape == (3, 64, 64) for method in GRADIENTS.values())
    assert set(saliency.supported_methods([attending])) == set(METHODS)
    assert set(saliency.supported_methods([attending, build_classifier(Architecture(model, 1, 64))])) == set(GRADIENTS)
