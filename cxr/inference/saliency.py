"""Class maps: where in an image a network sees a class, from the gradient of its logit or from its own attention.

Of the first two here, Grad-CAM is the one that others report, and LayerCAM the one that finds more of the demo's boxes.
It looks at a finer layer, where the gradient of each place says more than its mean over all places. (At 96 px the last
layer of a ResNet has 3 × 3 places, each larger than most boxes.) It was picked from 34 variants on the validation boxes
of the demo, for one network: elsewhere, go by its score beside Grad-CAM's and not by this choice.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.errors import InputError
from cxr.models.classifier import Classifier
from cxr.models.feature_map import num_prefix_tokens, to_feature_map
from cxr.models.image_store import ImageStore

# Places a side that LayerCAM's layer has at least: as many as the best of three had on the demo's validation boxes.
FINE_SIDE = 12
_TRUNK = ""  # what the head is given


def grad_cam(classifier: Classifier, pixels: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM at the last layer that has places: ReLU(Σ w A) over the features A, w the mean gradient of each.

    (Selvaraju et al., Grad-CAM, ICCV 2017.) The maps are 0 or more and not normalised, so those of several networks can
    be averaged: a class that nothing speaks for has a map of zeros. With average pooling and a linear layer a place's
    value is what it adds to the logit, where that is above 0.

    Args:
        classifier: put into eval mode; its parameters get no gradient.
        pixels: float [images, 1, side, side], 0 to 1.
        classes: which class to map in each image, its column, int [images].

    Returns:
        float [images, side, side], enlarged bilinearly.

    Raises:
        InputError: where the network has no square grid of features.
    """
    features, gradients = _features_and_gradients(classifier, pixels, classes, _last_layer(classifier.backbone))
    return upsample(_relu_sum(gradients.mean(dim=(2, 3), keepdim=True) * features), pixels.shape[-1])


def layer_cam(classifier: Classifier, pixels: Tensor, classes: Tensor) -> Tensor:
    """LayerCAM at a finer layer: ReLU(Σ ReLU(gradient) A), the gradient that of each place.

    (Jiang et al., LayerCAM, IEEE Transactions on Image Processing 30, 2021.) The layer is the deepest that has
    `FINE_SIDE` places a side, or that has the most. Arguments, result and errors are those of `grad_cam`.
    """
    layer = _fine_layer(classifier.backbone, pixels.shape[-1])
    features, gradients = _features_and_gradients(classifier, pixels, classes, layer)
    return upsample(_relu_sum(gradients.relu() * features), pixels.shape[-1])


def attention_map(classifier: Classifier, pixels: Tensor, classes: Tensor) -> Tensor:
    """How much the class's own attention weighs each place; for networks that have such a head.

    Arguments and result are those of `grad_cam`.

    Raises:
        ValueError: where the network has no attention.
    """
    with torch.no_grad():
        weights = classifier.eval().attention_maps(pixels)
    return upsample(weights[torch.arange(len(weights)), classes.to(weights.device)], pixels.shape[-1])


Method = Callable[[Classifier, Tensor, Tensor], Tensor]
METHODS: Mapping[str, Method] = {"grad_cam": grad_cam, "layer_cam": layer_cam, "attention": attention_map}


def supported_methods(classifiers: list[Classifier]) -> dict[str, Method]:
    """The methods of `METHODS` that serve all of these networks."""
    attend = all(classifier.attention for classifier in classifiers)
    return {name: method for name, method in METHODS.items() if attend or name != "attention"}


def saliency_maps(
    method: Method, classifier: Classifier, pixels: ImageStore, classes: NDArray[np.int64], batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """The map, float32 [side, side], of each of `pixels` for its class, one after the other: they may be many.

    Args:
        method: one of `METHODS`.
        classifier: on the device of `pixels`.
        pixels: an image may be there several times, for several classes.
        classes: int [ours].
        batch_size: images mapped at once.
    """
    places = np.arange(len(pixels))
    batches = np.split(places, range(batch_size, len(places), batch_size))
    for batch, images in zip(batches, pixels.batches(batches), strict=True):
        yield from method(classifier, images, torch.from_numpy(classes[batch])).cpu().numpy()


def fine_grid(classifier: Classifier, image_size: int) -> int:
    """How many places a side LayerCAM's layer has, for images of `image_size` pixels a side."""
    weight = next(classifier.parameters())
    black = torch.zeros(1, 1, image_size, image_size, device=weight.device)
    layer = _fine_layer(classifier.backbone, image_size)
    features, _ = _features_and_gradients(classifier, black, torch.zeros(1, dtype=torch.long), layer)
    return features.shape[-1]


def upsample(maps: Tensor, side: int) -> Tensor:
    """Maps, float [images, rows, columns], as float [images, side, side], bilinearly."""
    return functional.interpolate(maps.unsqueeze(1), size=(side, side), mode="bilinear").squeeze(1)


def _relu_sum(parts: Tensor) -> Tensor:
    return parts.sum(dim=1).relu()


def _features_and_gradients(
    classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """What `layer` puts out and the gradient of each image's logit by it, both [images, features, rows, columns]."""
    with torch.no_grad(), _watched(classifier.backbone, layer) as outputs:
        logits = classifier.eval()(pixels)
        if len(outputs) != 1:
            raise _no_map(classifier.backbone)
        # In eval mode an image's logit depends on that image alone: the sum has the gradients of all of them.
        chosen = logits.gather(1, classes.to(logits.device).unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, outputs)
    return _planes(classifier.backbone, outputs[0].detach()), _planes(classifier.backbone, gradient)


@contextmanager
def _watched(backbone: Any, layer: str) -> Iterator[list[Tensor]]:
    """Collect what `layer` puts out, and record what is computed from it on, not before, for its gradient.

    Leaves the recording on: to be used inside of torch.no_grad, which restores it.
    """
    outputs: list[Tensor] = []

    def watch(output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise _no_map(backbone)
        outputs.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        # An activation in place may overwrite the clone, never what was collected.
        return outputs[-1].clone()

    undo = _after_trunk(backbone, watch) if layer == _TRUNK else _after_layer(backbone, layer, watch)
    try:
        yield outputs
    finally:
        undo()


def _after_trunk(backbone: Any, watch: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    trunk = backbone.forward_features
    backbone.forward_features = lambda *given, **named: watch(trunk(*given, **named))
    # The attribute hides the class's own method, which shows again without it.
    return lambda: delattr(backbone, "forward_features")


def _after_layer(backbone: nn.Module, layer: str, watch: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    try:
        module = backbone.get_submodule(layer)
    except AttributeError:
        raise _no_map(backbone) from None
    return module.register_forward_hook(lambda _, __, output: watch(output)).remove


def _last_layer(backbone: nn.Module) -> str:
    """The trunk; with a class token the block before the last, after which the head may look at that token alone."""
    return _stages(backbone)[-1][0] if num_prefix_tokens(backbone) else _TRUNK


def _fine_layer(backbone: nn.Module, image_size: int) -> str:
    """The deepest stage with `FINE_SIDE` places a side, or with the most."""
    sides = {name: image_size // reduction for name, reduction in _stages(backbone)}
    enough = min(FINE_SIDE, max(sides.values()))
    return [name for name, side in sides.items() if side >= enough][-1]


def _stages(backbone: nn.Module) -> list[tuple[str, int]]:
    """Names of the stages that a map can be made at, and by how much each is smaller than the image."""
    known: Any = getattr(backbone, "feature_info", [])
    stages = [(stage["module"], stage["reduction"]) for stage in known]
    if num_prefix_tokens(backbone):
        stages = stages[:-1]
    if not stages:
        raise _no_map(backbone)
    return stages


def _planes(backbone: nn.Module, features: Tensor) -> Tensor:
    """Features as [images, features, side, side]."""
    grid = to_feature_map(backbone, features)
    if grid is None:
        raise _no_map(backbone)
    return grid.permute(0, 3, 1, 2)


def _no_map(backbone: nn.Module) -> InputError:
    return InputError(f"maps need one square grid of features, and timm's {type(backbone).__name__} shows none")
