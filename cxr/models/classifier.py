"""The classifier: a timm backbone that takes gray images and returns 15 logits."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from cxr.core.errors import InputError, first_lines
from cxr.core.labels import CLASSES
from cxr.models.feature_map import to_feature_map
from cxr.models.operating_points import OperatingPoints
from cxr.models.weights import check_pretrained_weights

# Options of timm.create_model that not every model has, and the parameter that sets each.
_OPTION_PARAMETERS = {"drop_path_rate": "drop_path_rate", "drop_rate": "drop_rate", "global_pool": "attention_pool"}


class Architecture(NamedTuple):
    """The arguments that determine the layers of a network."""

    model: str  # name in timm
    in_chans: int  # 1 or 3
    image_size: int  # pixels
    attention_pool: bool = False  # use an AttentionHead in place of the model's head


class AttentionHead(nn.Module):
    """Attention pooling with a separate attention map for each class.

    The logit of a class is a weighted mean of the outputs of a linear layer at all positions of the feature map, with
    weights that sum to 1, as in attention-based multiple instance learning (Ilse et al., ICML 2018). Initially all
    weights are equal, which is average pooling.
    """

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.logits = nn.Linear(features, len(CLASSES))
        self.attention = nn.Linear(features, len(CLASSES))
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, float [images, 15], for `features`, float [images, positions, features]."""
        kept = functional.dropout(features, self.dropout, self.training)
        return (self.weights(kept) * self.logits(kept)).sum(dim=1)

    def weights(self, features: Tensor) -> Tensor:
        """Return the attention weights, float [images, positions, 15], which sum to 1 over the positions."""
        return self.attention(features).softmax(dim=1)


class Classifier(nn.Module):
    """A timm backbone with the normalisation that its pretrained weights expect."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        in_chans: int,
        mean: list[float],
        std: list[float],
        attention: AttentionHead | None = None,
    ) -> None:
        """Create a classifier from its layers.

        Args:
            backbone: returns logits, or with `attention` a feature map.
            in_chans: number of input channels of the backbone, 1 or 3.
            mean: mean of each channel of the images that the backbone was pretrained on.
            std: standard deviation of each channel.
            attention: the head that computes the logits, if it is not the backbone's own.
        """
        super().__init__()
        self.backbone = backbone
        self.attention = attention
        self.operating_points: OperatingPoints | None = None  # of imported networks
        self.in_chans = in_chans
        for name, values in (("mean", mean), ("std", std)):
            # With a single channel, use the average over the three.
            per_channel = values if in_chans == len(values) else [sum(values) / len(values)]
            self.register_buffer(name, torch.tensor(per_channel).view(1, in_chans, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, float [images, 15], for `images`, float [images, 1, height, width] from 0 to 1."""
        output: Tensor = self.backbone(self._normalize(images))
        logits = self.attention(_feature_map(self.backbone, output).flatten(1, 2)) if self.attention else output
        return self.operating_points(logits) if self.operating_points else logits

    def attention_maps(self, images: Tensor) -> Tensor:
        """Return the attention weights, float [images, 15, rows, columns], which sum to 1 over the positions.

        Raises:
            ValueError: if the classifier has no attention head.
        """
        if self.attention is None:
            raise ValueError("this network has no attention head")
        feature_map = _feature_map(self.backbone, self.backbone(self._normalize(images)))
        weights = self.attention.weights(feature_map.flatten(1, 2))
        return weights.transpose(1, 2).unflatten(2, feature_map.shape[1:3])

    def head_layers(self) -> list[nn.Module]:
        """Return the layers that compute the logits: two in distilled models, otherwise one."""
        if self.attention:
            return [self.attention]
        backbone: Any = self.backbone
        layers = backbone.get_classifier()
        return list(layers) if isinstance(layers, tuple | list) else [layers]

    def init_head_bias(self, logits: Tensor) -> None:
        """Set the bias of the last layer to `logits`, float [15].

        Raises:
            InputError: if the last layer has no bias.
        """
        for layer in self.head_layers():
            bias = getattr(layer.logits if isinstance(layer, AttentionHead) else layer, "bias", None)
            if not isinstance(bias, nn.Parameter):
                raise InputError("prior_bias: the last layer of this model has no bias; set prior_bias to false")
            with torch.no_grad():
                bias.copy_(logits)

    def _normalize(self, images: Tensor) -> Tensor:
        # One operation creates all channels, in the channels-last layout that convolutions use.
        gray = images.permute(0, 2, 3, 1)
        return torch.addcmul(-(self.mean / self.std).flatten(), gray, (1 / self.std).flatten()).permute(0, 3, 1, 2)


def check_model_name(model: str) -> None:
    """Check that timm has a model of this name.

    Raises:
        InputError: if there is none; the message lists similar names.
    """
    if not timm.is_model(model):
        close = get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists all names"
        raise InputError(f"models: timm {timm.__version__} has no model {model!r}; {hint}")
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise InputError(f"models: {error}") from None


def build_classifier(
    architecture: Architecture, pretrained: Path | None = None, drop_rate: float = 0, drop_path_rate: float = 0
) -> Classifier:
    """Build a classifier, with random weights or with pretrained weights in all layers but the last.

    Random weights come from PyTorch's global generator; seed it first.

    Args:
        architecture: the network to build.
        pretrained: path of the pretrained weights.
        drop_rate: dropout before the last layer.
        drop_path_rate: stochastic depth of the last block; it falls linearly to 0 at the first.

    Raises:
        InputError: if the weights belong to another model, or the model does not support the image size or an option.
    """
    model, in_chans, image_size, attention_pool = architecture
    try:
        if pretrained:
            check_pretrained_weights(model, pretrained)
        backbone = _create_backbone(architecture, pretrained, drop_rate, drop_path_rate)
        _disable_inplace(backbone)
        output = _run_once(backbone, in_chans, image_size)
        head = AttentionHead(_feature_map(backbone, output).shape[3], drop_rate) if attention_pool else None
    except (RuntimeError, KeyError, SafetensorError, AssertionError) as error:
        failure = f"the weights {pretrained} do not fit" if pretrained else "timm cannot build"
        settings = f"{model} with {in_chans} channels at {image_size} px"
        raise InputError(f"{failure} {settings}: {first_lines(error)}") from None
    config: Any = backbone.pretrained_cfg
    classifier = Classifier(backbone, in_chans, list(config["mean"]), list(config["std"]), head)
    # Convolutions are a quarter to a half faster on a CPU in the channels-last layout, and use a GPU's tensor cores.
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _create_backbone(
    architecture: Architecture, pretrained: Path | None, drop_rate: float, drop_path_rate: float
) -> nn.Module:
    """Create the timm model of a classifier.

    Raises:
        RuntimeError: if the model does not support an option; the message names the parameter.
    """
    model, in_chans, image_size, attention_pool = architecture
    config = timm.get_pretrained_cfg(model)
    options: dict[str, Any] = {"img_size": image_size} if config and config.fixed_input_size else {}
    options |= {"num_classes": 0, "global_pool": ""} if attention_pool else {"num_classes": len(CLASSES)}
    options |= {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    options |= {"drop_rate": drop_rate} if drop_rate and not attention_pool else {}
    if pretrained:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained), "hf_hub_id": None}}
    try:
        backbone: nn.Module = timm.create_model(model, in_chans=in_chans, **options)
    except TypeError as error:
        for option, parameter in _OPTION_PARAMETERS.items():
            if f"'{option}'" in str(error):
                raise RuntimeError(f"{parameter}: the model has no such option; turn it off") from None
        raise
    # Some models accept the option and ignore it.
    if drop_path_rate and not any(isinstance(module, DropPath) for module in backbone.modules()):
        raise RuntimeError("drop_path_rate: the model has no stochastic depth; set drop_path_rate to 0")
    return backbone


def _disable_inplace(backbone: nn.Module) -> None:
    """Let activations return a new tensor.

    For the gradient of an in-place SiLU, autograd copies its input in every step; the results are the same.
    """
    for module in backbone.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _feature_map(backbone: nn.Module, features: Tensor) -> Tensor:
    feature_map = to_feature_map(backbone, features)
    if feature_map is None:
        raise RuntimeError("attention_pool: the model has no square feature map; set attention_pool to false")
    return feature_map


def _run_once(backbone: nn.Module, in_chans: int, image_size: int) -> Tensor:
    """Return the output for a black image, so that a model too deep for the image size fails before training."""
    with torch.no_grad():
        output: Tensor = backbone.eval()(torch.zeros(1, in_chans, image_size, image_size))
    backbone.train()
    return output
