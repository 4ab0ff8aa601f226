"""The classifier: a timm backbone on gray images, with 15 outputs."""

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
from cxr.models.weights import check_weights


class Architecture(NamedTuple):
    """All that is needed to build a network but its weights."""

    model: str  # a name that timm knows
    in_chans: int  # 1 or 3
    image_size: int  # pixels
    attention_pool: bool = False  # whether an AttentionHead computes the logits


class AttentionHead(nn.Module):
    """Logits from the places of a feature map: each class pools them with weights of its own, which sum to 1.

    A class's logit is the weighted mean of what a linear layer says of each place, as in attention-based multiple
    instance learning (Ilse et al., ICML 2018), a class at a time. It starts as average pooling: all weights equal.
    """

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.logits = nn.Linear(features, len(CLASSES))
        self.attention = nn.Linear(features, len(CLASSES))
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)

    def forward(self, places: Tensor) -> Tensor:
        """Logits, float [images, 15], of `places`, float [images, places, features]."""
        kept = functional.dropout(places, self.dropout, self.training)
        return (self.weights(kept) * self.logits(kept)).sum(dim=1)

    def weights(self, places: Tensor) -> Tensor:
        """How much each place counts for each class, float [images, places, 15], summing to 1 over the places."""
        return self.attention(places).softmax(dim=1)


class Classifier(nn.Module):
    """A timm network on gray pixels, with the normalisation that its pretrained weights expect."""

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
        """Put together a network.

        Args:
            backbone: gives the logits, or with `attention` a feature map.
            in_chans: 1 or 3.
            mean: of each channel, in the pixels that the backbone's weights expect.
            std: their standard deviation.
            attention: gives the logits in place of the backbone's own head.
        """
        super().__init__()
        self.backbone = backbone
        self.attention = attention
        self.in_chans = in_chans
        for name, values in (("mean", mean), ("std", std)):
            # One channel takes the average of the three; gray pictures have no better value for it.
            fitting = values if in_chans == len(values) else [sum(values) / len(values)]
            self.register_buffer(name, torch.tensor(fitting).view(1, in_chans, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float [images, 15], of `pixels`, float [images, 1, height, width] from 0 to 1."""
        found: Tensor = self.backbone(self._normal(pixels))
        return self.attention(_grid_of(self.backbone, found).flatten(1, 2)) if self.attention else found

    def attention_maps(self, pixels: Tensor) -> Tensor:
        """How much each place counts for each class, float [images, 15, rows, columns], summing to 1 over the places.

        Raises:
            ValueError: where the network has no attention.
        """
        if self.attention is None:
            raise ValueError("this network has no attention head")
        grid = _grid_of(self.backbone, self.backbone(self._normal(pixels)))
        weights = self.attention.weights(grid.flatten(1, 2))
        return weights.transpose(1, 2).unflatten(2, grid.shape[1:3])

    def head_layers(self) -> list[nn.Module]:
        """The layers that give the logits: one, in networks with two heads (as distilled ones) two, or attention's."""
        if self.attention:
            return [self.attention]
        backbone: Any = self.backbone
        found = backbone.get_classifier()
        return list(found) if isinstance(found, tuple | list) else [found]

    def start_bias(self, log_odds: Tensor) -> None:
        """Let each class's logit start around `log_odds`, float [15].

        Raises:
            InputError: where the last layer has no bias.
        """
        for layer in self.head_layers():
            bias = getattr(layer.logits if isinstance(layer, AttentionHead) else layer, "bias", None)
            if not isinstance(bias, nn.Parameter):
                raise InputError("prior_bias: the last layer of this network has no bias; set it to false")
            with torch.no_grad():
                bias.copy_(log_odds)

    def _normal(self, pixels: Tensor) -> Tensor:
        # One pass makes all channels, in the order that convolutions want: channels last.
        gray = pixels.permute(0, 2, 3, 1)
        return torch.addcmul(-(self.mean / self.std).flatten(), gray, (1 / self.std).flatten()).permute(0, 3, 1, 2)


def check_model_name(model: str) -> None:
    """Raise InputError, with close matches, where timm knows no network called `model`."""
    if not timm.is_model(model):
        close = get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise InputError(f"models: timm {timm.__version__} knows no network {model!r}; {hint}")
    try:
        timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise InputError(f"models: {error}") from None


def build_classifier(
    architecture: Architecture, pretrained: Path | None = None, drop_rate: float = 0, drop_path_rate: float = 0
) -> Classifier:
    """Build a network with 15 outputs; all but the last layer start from `pretrained` where it is given.

    Weights that are not loaded are drawn from PyTorch's global generator: seed it first.

    Args:
        architecture: what to build.
        pretrained: a file as `weights_file` names it.
        drop_rate: the probability that a feature is dropped before the last layer, in training.
        drop_path_rate: the probability that the last block is skipped, in training; that of the others falls to 0.

    Raises:
        InputError: where the weights belong to another network, or the network cannot take these images or options.
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
        if pretrained:
            check_weights(model, pretrained)
        backbone = _create(model, in_chans=in_chans, **options)
        _check_drop_path(backbone, drop_path_rate)
        found = _try_once(backbone, in_chans, image_size)
        head = AttentionHead(_grid_of(backbone, found).shape[3], drop_rate) if attention_pool else None
    except (RuntimeError, KeyError, SafetensorError, AssertionError) as error:
        what = f"the weights {pretrained} do not fit" if pretrained else "timm cannot build"
        raise InputError(f"{what} {model} with {in_chans} channels at {image_size} px: {first_lines(error)}") from None
    normalisation: Any = backbone.pretrained_cfg
    classifier = Classifier(backbone, in_chans, list(normalisation["mean"]), list(normalisation["std"]), head)
    # Channels last: convolutions are a quarter to a half faster on a CPU, and tensor cores want it.
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _create(model: str, **options: Any) -> nn.Module:
    """A network of timm's; RuntimeError, naming the parameter, where it has no such option."""
    try:
        return timm.create_model(model, **options)
    except TypeError as error:
        for option, parameter in (
            ("drop_path_rate", "drop_path_rate"),
            ("drop_rate", "drop_rate"),
            ("global_pool", "attention_pool"),
        ):
            if f"'{option}'" in str(error):
                raise RuntimeError(f"{parameter}: this network knows nothing of the kind; turn it off") from None
        raise


def _grid_of(backbone: nn.Module, features: Tensor) -> Tensor:
    """`as_grid`; RuntimeError where there is none."""
    grid = to_feature_map(backbone, features)
    if grid is None:
        raise RuntimeError("attention_pool: the model has no square feature map; set attention_pool to false")
    return grid


def _try_once(backbone: nn.Module, in_chans: int, image_size: int) -> Tensor:
    """What it says of one black image: a network too deep for the image size fails here and not in the first step."""
    with torch.no_grad():
        found: Tensor = backbone.eval()(torch.zeros(1, in_chans, image_size, image_size))
    backbone.train()
    return found


def _check_drop_path(backbone: nn.Module, drop_path_rate: float) -> None:
    """Raise RuntimeError where the network has no blocks to skip, and timm would not say so."""
    if drop_path_rate and not any(isinstance(module, DropPath) for module in backbone.modules()):
        raise RuntimeError("drop_path_rate: the model has no stochastic depth; set drop_path_rate to 0")
