"""Which parts of a network are trained, and how fast: the last layers more than the first ones.

A stage is what timm calls one: the stem, then groups of blocks, of a transformer each block. What gives the logits is
the head, and no stage.
"""

from typing import Any

from timm.models import group_parameters
from torch import nn

from cxr.models.classifier import Classifier
from cxr.training.params import TrainParams


def backbone_stages(classifier: Classifier) -> list[list[nn.Parameter]]:
    """The parameters of each stage of the backbone, from the first to the last, without the head's."""
    backbone: Any = classifier.backbone
    head = {id(parameter) for parameter in head_parameters(classifier)}
    by_name = dict(backbone.named_parameters())
    names = group_parameters(backbone, backbone.group_matcher(coarse=True))
    groups = [[by_name[name] for name in group if id(by_name[name]) not in head] for group in names.values()]
    return [group for group in groups if group]


def head_parameters(classifier: Classifier) -> list[nn.Parameter]:
    """The parameters of the layers that give the logits."""
    return [parameter for layer in classifier.head_layers() for parameter in layer.parameters()]


def parameter_groups(classifier: Classifier, params: TrainParams) -> list[dict[str, object]]:
    """All parameters for an optimizer, in one group for each learning rate: `params` and `highest`, float.

    The head's is `lr` times `head_lr_factor`; a stage's is `stage_lr_decay` times that of the stage after it, and the
    last one's is `lr`.
    """
    ordered = backbone_stages(classifier)
    rates = [params.lr * params.layer_decay ** (len(ordered) - 1 - place) for place in range(len(ordered))]
    groups: dict[float, list[nn.Parameter]] = {}
    for rate, parameters in zip(
        [*rates, params.lr * params.head_lr_factor], [*ordered, head_parameters(classifier)], strict=True
    ):
        groups.setdefault(rate, []).extend(parameters)
    return [{"params": parameters, "highest": rate} for rate, parameters in groups.items()]


def num_trainable_stages(epoch: int, count: int, unfreeze_epochs: int) -> int:
    """How many of `count` stages are trained in `epoch`, which counts from 1: one more every `unfreeze_epochs`."""
    return min(count, (epoch - 1) // unfreeze_epochs) if unfreeze_epochs else count


def unfreeze_last(classifier: Classifier, count: int) -> None:
    """Set the network to training: the head and the last `count` stages; nothing in the others moves.

    Their batch normalisation keeps its running statistics and uses them.
    """
    ordered = backbone_stages(classifier)
    for place, parameters in enumerate(ordered):
        for parameter in parameters:
            parameter.requires_grad_(place >= len(ordered) - count)
    classifier.train()
    for module in classifier.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
