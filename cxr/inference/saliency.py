"""Saliency maps of a class in an image: Grad-CAM, LayerCAM, and the weights of attention pooling.

Grad-CAM is the method that most papers report. LayerCAM hits more of the demo's bounding boxes: it uses a finer layer,
and the gradient at each position in place of the mean gradient. (At 96 px the last layer of a ResNet has 3 × 3
positions, each larger than most boxes.) It was selected from 34 variants on the demo's validation boxes, for one
network; for other data, compare its localisation scores with Grad-CAM's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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

# Minimum side of LayerCAM's feature map, positions; the best of three layers on the demo's validation boxes has it.
LAYER_CAM_SIDE = 12
_TRUNK = ""  # the features that the head receives


def grad_cam(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Compute Grad-CAM at the last spatial layer: ReLU(Σ w A) over the features A, w the mean gradient of each.

    (Selvaraju et al., Grad-CAM, ICCV 2017.) The maps are not negative and not normalised, so that the maps of several
    networks can be averaged. With average pooling and a linear layer, a position's value is its contribution to the
    logit if that is above 0.

    Args:
        classifier: put into eval mode; its parameters get no gradient.
        images: float [images, 1, side, side], 0 to 1.
        classes: column of the class to map in each image, int [images].

    Returns:
        float [images, side, side], upsampled bilinearly.

    Raises:
        InputError: if the network has no square feature map.
    """
    features, gradients = _features_and_gradients(classifier, images, classes, _last_layer(classifier.backbone))
    return upsample(_relu_sum(gradients.mean(dim=(2, 3), keepdim=True) * features), images.shape[-1])


def layer_cam(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Compute LayerCAM: ReLU(Σ ReLU(gradient) A) over the features A, with the gradient at each position.

    (Jiang et al., LayerCAM, IEEE Transactions on Image Processing 30, 2021.) The layer is the deepest with at least
    `LAYER_CAM_SIDE` positions per side, or the one with the most. Arguments, result and errors are those of `grad_cam`.
    """
    layer = _layer_cam_layer(classifier.backbone, images.shape[-1])
    features, gradients = _features_and_gradients(classifier, images, classes, layer)
    return upsample(_relu_sum(gradients.relu() * features), images.shape[-1])


def attention_map(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Return the weights of the class's attention pooling.

    Arguments and result are those of `grad_cam`.

    Raises:
        ValueError: if the network has no attention pooling.
    """
    with torch.no_grad():
        weights = classifier.eval().attention_maps(images)
    return upsample(weights[torch.arange(len(weights)), classes.to(weights.device)], images.shape[-1])


Method = Callable[[Classifier, Tensor, Tensor], Tensor]
METHODS: Mapping[str, Method] = {"grad_cam": grad_cam, "layer_cam": layer_cam, "attention": attention_map}


def supported_methods(classifiers: Sequence[Classifier]) -> dict[str, Method]:
    """Return the methods of `METHODS` that all of the networks support."""
    has_attention = all(classifier.attention for classifier in classifiers)
    return {name: method for name, method in METHODS.items() if has_attention or name != "attention"}


def saliency_maps(
    method: Method, classifier: Classifier, images: ImageStore, classes: NDArray[np.int64], batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the saliency map of each image for its class, float32 [side, side].

    Args:
        method: one of `METHODS`.
        classifier: on the device of `images`.
        images: may contain an image several times, for several classes.
        classes: column of the class to map in each image, int [images].
        batch_size: images per batch.
    """
    indices = np.arange(len(images))
    batches = np.split(indices, range(batch_size, len(indices), batch_size))
    for batch, pixels in zip(batches, images.batches(batches), strict=True):
        yield from method(classifier, pixels, torch.from_numpy(classes[batch])).cpu().numpy()


def layer_cam_side(classifier: Classifier, image_size: int) -> int:
    """Return the side of LayerCAM's feature map for images of `image_size` pixels per side."""
    weight = next(classifier.parameters())
    black = torch.zeros(1, 1, image_size, image_size, device=weight.device)
    layer = _layer_cam_layer(classifier.backbone, image_size)
    features, _ = _features_and_gradients(classifier, black, torch.zeros(1, dtype=torch.long), layer)
    return features.shape[-1]


def upsample(maps: Tensor, side: int) -> Tensor:
    """Resize maps, float [images, rows, columns], to float [images, side, side] bilinearly."""
    return functional.interpolate(maps.unsqueeze(1), size=(side, side), mode="bilinear").squeeze(1)


def _relu_sum(features: Tensor) -> Tensor:
    return features.sum(dim=1).relu()


def _features_and_gradients(
    classifier: Classifier, images: Tensor, classes: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """Return the output of `layer` and the gradient of each image's logit, both [images, features, rows, columns]."""
    with torch.no_grad(), _record_output(classifier.backbone, layer) as outputs:
        logits = classifier.eval()(images)
        if len(outputs) != 1:
            raise _unsupported(classifier.backbone)
        # In eval mode a logit depends on one image only, so the gradient of the sum holds that of each image.
        chosen = logits.gather(1, classes.to(logits.device).unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, outputs)
    return _channels_first(classifier.backbone, outputs[0].detach()), _channels_first(classifier.backbone, gradient)


@contextmanager
def _record_output(backbone: Any, layer: str) -> Iterator[list[Tensor]]:
    """Collect the output of `layer`, and enable gradients for everything computed from it.

    Gradients stay enabled at exit: use inside torch.no_grad, which restores the mode.
    """
    outputs: list[Tensor] = []

    def record(output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise _unsupported(backbone)
        outputs.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        # An in-place activation may overwrite the clone, but not the recorded output.
        return outputs[-1].clone()

    remove = _hook_trunk(backbone, record) if layer == _TRUNK else _hook_layer(backbone, layer, record)
    try:
        yield outputs
    finally:
        remove()


def _hook_trunk(backbone: Any, hook: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    trunk = backbone.forward_features
    backbone.forward_features = lambda *args, **kwargs: hook(trunk(*args, **kwargs))
    # The instance attribute shadows the class's method; deleting it restores the method.
    return lambda: delattr(backbone, "forward_features")


def _hook_layer(backbone: nn.Module, layer: str, hook: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    try:
        module = backbone.get_submodule(layer)
    except AttributeError:
        raise _unsupported(backbone) from None
    return module.register_forward_hook(lambda _, __, output: hook(output)).remove


def _last_layer(backbone: nn.Module) -> str:
    """Return the trunk; with a class token the last block but one, since the head may use only that token's output."""
    return _stages(backbone)[-1][0] if num_prefix_tokens(backbone) else _TRUNK


def _layer_cam_layer(backbone: nn.Module, image_size: int) -> str:
    """Return the deepest stage with at least `LAYER_CAM_SIDE` positions per side, or the one with the most."""
    sides = {name: image_size // reduction for name, reduction in _stages(backbone)}
    smallest = min(LAYER_CAM_SIDE, max(sides.values()))
    return [name for name, side in sides.items() if side >= smallest][-1]


def _stages(backbone: nn.Module) -> list[tuple[str, int]]:
    """Return name and reduction (image side by feature map side) of the stages that support saliency maps."""
    feature_info: Any = getattr(backbone, "feature_info", [])
    stages = [(stage["module"], stage["reduction"]) for stage in feature_info]
    if num_prefix_tokens(backbone):
        stages = stages[:-1]
    if not stages:
        raise _unsupported(backbone)
    return stages


def _channels_first(backbone: nn.Module, features: Tensor) -> Tensor:
    """Return features as [images, features, side, side]."""
    feature_map = to_feature_map(backbone, features)
    if feature_map is None:
        raise _unsupported(backbone)
    return feature_map.permute(0, 3, 1, 2)


def _unsupported(backbone: nn.Module) -> InputError:
    return InputError(f"saliency maps need a square feature map, and timm's {type(backbone).__name__} has none")
