from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cxr.core.errors import InputError
from cxr.models.weights import check_pretrained_weights, pretrained_weights_path
from tests.fixtures.networks import write_pretrained


def test_the_path_of_existing_weights_is_returned(tmp_path: Path) -> None:
    assert pretrained_weights_path("test_resnet", write_pretrained(tmp_path).parent) == write_pretrained(tmp_path)


def test_missing_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*resnet18\.safetensors; .*tools\.weights resnet18.*weights_dir.*none"):
        pretrained_weights_path("resnet18", tmp_path)


def test_weights_of_the_model_pass_and_others_are_refused(tmp_path: Path) -> None:
    path = write_pretrained(tmp_path)
    check_pretrained_weights("test_resnet", path)
    with pytest.raises(KeyError, match="tensors are missing or unknown, such as"):
        check_pretrained_weights("test_efficientnet", path)
    tensors = load_file(path)
    del tensors["conv1.0.weight"]
    save_file(tensors, path)
    with pytest.raises(KeyError, match=r"1 tensors are missing or unknown, such as conv1\.0\.weight"):
        check_pretrained_weights("test_resnet", path)


def test_weights_without_batch_counters_pass(tmp_path: Path) -> None:
    tensors = timm.create_model("test_resnet").state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "test_resnet.safetensors")
    check_pretrained_weights("test_resnet", tmp_path / "test_resnet.safetensors")


def test_the_check_draws_no_random_numbers(tmp_path: Path) -> None:
    """The weights of a network depend on the seed alone, with pretrained weights or without."""
    path = write_pretrained(tmp_path)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    check_pretrained_weights("test_resnet", path)
    assert torch.equal(torch.get_rng_state(), before)
