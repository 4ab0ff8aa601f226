"""Parameter groups of the optimizer, and gradual unfreezing.

The stages of a backbone are those of timm: the stem, then groups of blocks, or the blocks of a transformer. The layers
that compute the logits are the head and belong to no stage.
"""

from typing import Any

from timm.models import group_parameters
from torch import nn

from cxr.core.errors import InputError
from cxr.models.classifier import Classifier
from cxr.training.params import TrainParams


def backbone_stages(classifier: Classifier) -> list[list[nn.Parameter]]:
    """Return the parameters of each stage of the backbone, from first to last, without the head.

    Raises:
        InputError: if timm does not define the stages of this model.
    """
    backbone: Any = classifier.backbone
    if not hasattr(backbone, "group_matcher"):
        raise InputError(f"models: timm does not define the stages of {type(backbone).__name__}; choose another model")
    head = {id(parameter) for parameter in head_parameters(classifier)}
    by_name = dict(backbone.named_parameters())
    names = group_parameters(backbone, backbone.group_matcher(coarse=True))
    groups = [[by_name[name] for name in group if id(by_name[name]) not in head] for group in names.values()]
    return [group for group in groups if group]


def head_parameters(classifier: Classifier) -> list[nn.Parameter]:
    """Return the parameters of the layers that compute the logits."""
    return [parameter for layer in classifier.head_layers() for parameter in layer.parameters()]


def parameter_groups(classifier: Classifier, params: TrainParams) -> list[dict[str, object]]:
    """Return all parameters for an optimizer, in one group for each learning rate: `params`, and `initial_lr`, float.

    The learning rate of the last stage is `lr`; that of each earlier stage is `layer_decay` times that of the next; and
    that of the head is `lr` times `head_lr_factor`.
    """
    stages = backbone_stages(classifier)
    rates = [params.lr * params.layer_decay ** (len(stages) - 1 - index) for index in range(len(stages))]
    groups: dict[float, list[nn.Parameter]] = {}
    for rate, parameters in zip(
        [*rates, params.lr * params.head_lr_factor], [*stages, head_parameters(classifier)], strict=True
    ):
        groups.setdefault(rate, []).extend(parameters)
    return [{"params": parameters, "initial_lr": rate} for rate, parameters in groups.items()]


def num_trainable_stages(epoch: int, num_stages: int, unfreeze_epochs: int) -> int:
    """Return the number of stages trained in `epoch`, counted from 1: one more after every `unfreeze_epochs`."""
    return min(num_stages, (epoch - 1) // unfreeze_epochs) if unfreeze_epochs else num_stages


def unfreeze_last(classifier: Classifier, num_stages: int) -> None:
    """Set the network to training mode with only the head and the last `num_stages` stages trainable.

    Batch normalisation in frozen stages uses its running statistics and does not update them.
    """
    stages = backbone_stages(classifier)
    for index, parameters in enumerate(stages):
        for parameter in parameters:
            parameter.requires_grad_(index >= len(stages) - num_stages)
    classifier.train()
    for module in classifier.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
