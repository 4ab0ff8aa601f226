from typing import Any

import pytest
import torch

from cxr.core.errors import InputError
from cxr.models.classifier import Architecture, Classifier, build_classifier
from cxr.training.parameter_groups import (
    backbone_stages,
    head_parameters,
    num_trainable_stages,
    parameter_groups,
    unfreeze_last,
)
from tests.fixtures.networks import MODELS
from tests.fixtures.planted import train_params


def build(model: str = "test_resnet", **options: Any) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(Architecture(model, 1, 48, **options))


def take_step(classifier: Classifier) -> None:
    """Take a step that changes every trainable tensor but zeros, whose gradient may be zero."""
    optimizer = torch.optim.AdamW(classifier.parameters(), 0.1, weight_decay=0.5)
    classifier(torch.rand(4, 1, 48, 48)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("attention_pool", [False, True])
def test_stages_and_head_have_each_parameter_once(model: str, attention_pool: bool) -> None:
    classifier = build(model, attention_pool=attention_pool)
    found = [*(parameter for stage in backbone_stages(classifier) for parameter in stage), *head_parameters(classifier)]
    assert len(backbone_stages(classifier)) >= 4
    assert len({id(parameter) for parameter in found}) == len(found)
    assert {id(parameter) for parameter in found} == {id(parameter) for parameter in classifier.parameters()}


def test_stages_are_in_the_order_of_the_forward_pass() -> None:
    classifier = build()
    names = {id(parameter): name for name, parameter in classifier.backbone.named_parameters()}
    firsts = [names[id(stage[0])].partition(".")[0] for stage in backbone_stages(classifier)]
    assert firsts == ["conv1", "layer1", "layer2", "layer3", "layer4"]


def test_one_more_stage_is_trained_after_each_period() -> None:
    assert [num_trainable_stages(epoch, 5, 2) for epoch in range(1, 14)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    assert [num_trainable_stages(epoch, 5, 0) for epoch in (1, 2)] == [5, 5]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 2])
def test_frozen_stages_keep_their_weights_and_the_others_change(model: str, count: int) -> None:
    classifier = build(model)
    unfreeze_last(classifier, count)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    ordered = backbone_stages(classifier)
    frozen = {id(parameter) for stage in ordered[: len(ordered) - count] for parameter in stage}
    names = {name for name, parameter in classifier.named_parameters() if id(parameter) in frozen}
    prefixes = {name.rpartition(".")[0] for name in names}
    take_step(classifier)
    for name, tensor in classifier.state_dict().items():
        if name in names or name.rpartition(".")[0] in prefixes:  # running statistics as well
            assert torch.equal(tensor, before[name]), name
    trainable = [name for name, parameter in classifier.named_parameters() if id(parameter) not in frozen]
    changed = [name for name in trainable if before[name].any()]
    assert len(changed) > count
    assert not any(torch.equal(classifier.state_dict()[name], before[name]) for name in changed)


def test_unfrozen_stages_update_weights_and_running_statistics() -> None:
    classifier = build()
    unfreeze_last(classifier, 0)
    unfreeze_last(classifier, len(backbone_stages(classifier)))
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    take_step(classifier)
    after = classifier.state_dict()
    assert not [name for name, it in before.items() if it.any() and torch.equal(after[name], it)]


def test_learning_rates_decay_from_the_head_to_the_stem() -> None:
    classifier = build()
    params = train_params(lr=0.01, head_lr_factor=10.0, layer_decay=0.5)
    rate_of = {
        id(parameter): group["initial_lr"]
        for group in parameter_groups(classifier, params)
        for parameter in group["params"]  # type: ignore[attr-defined]
    }
    ordered = backbone_stages(classifier)
    expected = [0.01 * 0.5**power for power in (4, 3, 2, 1, 0)]
    for stage, rate in zip(ordered, expected, strict=True):
        assert [rate_of[id(parameter)] for parameter in stage] == pytest.approx([rate] * len(stage))
    assert {rate_of[id(parameter)] for parameter in head_parameters(classifier)} == {0.1}


def test_equal_learning_rates_share_a_group() -> None:
    assert len(parameter_groups(build(), train_params())) == 1


def test_a_model_without_stages_is_refused() -> None:
    with pytest.raises(InputError, match="timm does not define the stages of MetaFormer"):
        parameter_groups(build("poolformer_s12"), train_params())
