from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from cxr.models.feature_map import num_prefix_tokens, to_feature_map
from tests.fixtures.networks import MODELS


class Backbone(nn.Module):
    """A backbone with the attributes that timm's models have."""

    def __init__(self, output_fmt: str = "NCHW", prefix: int = 0) -> None:
        super().__init__()
        self.output_fmt, self.num_prefix_tokens = output_fmt, prefix


@pytest.fixture
def expected() -> Tensor:
    """A feature map [images, rows, columns, features]."""
    return torch.rand(2, 4, 4, 5)


def test_each_layout_gives_the_same_feature_map(expected: Tensor) -> None:
    tokens = expected.flatten(1, 2)
    with_prefix = torch.cat([torch.rand(2, 1, 5), tokens], dim=1)
    for backbone, features in (
        (Backbone(), expected.permute(0, 3, 1, 2)),
        (Backbone("NHWC"), expected),
        (Backbone(), tokens),
        (Backbone(prefix=1), with_prefix),
        (Backbone(prefix=1), tokens),  # class attention leaves the prefix out
    ):
        found = to_feature_map(backbone, features)
        assert found is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3, 4), (2, 7, 5)])
def test_features_that_form_no_square_give_none(shape: tuple[int, ...]) -> None:
    assert to_feature_map(Backbone(), torch.rand(shape)) is None


@pytest.mark.parametrize("model", MODELS)
def test_timm_models_have_square_feature_maps(model: str) -> None:
    options: dict[str, Any] = {"img_size": 64} if model == "test_vit" else {}
    backbone: Any = timm.create_model(model, **options).eval()
    found = to_feature_map(backbone, backbone.forward_features(torch.rand(1, 3, 64, 64)))
    assert found is not None
    assert found.shape[1] == found.shape[2]
    assert num_prefix_tokens(backbone) == (1 if model == "test_vit" else 0)
