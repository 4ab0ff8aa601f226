import os
from importlib.metadata import version

import pytest
import torch

from cxr.core.errors import InputError
from cxr.models.device import describe_device, init_device, library_versions, translate_torch_errors


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", "lower batch_size"),
        ("grid_sampler_2d_backward_cuda does not have a deterministic implementation", "deterministic to false"),
    ],
)
def test_errors_that_other_parameters_avoid_are_explained(message: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice), translate_torch_errors():
        raise RuntimeError(message)


def test_other_errors_are_raised_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), translate_torch_errors():
        raise RuntimeError("something else")


def test_a_full_gpu_is_explained() -> None:
    with pytest.raises(InputError, match="out of memory: lower batch_size or image_size"), translate_torch_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("deterministic", [True, False])
def test_threads_and_determinism_are_set(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_ALGO", raising=False)
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        device = init_device(1, deterministic)
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.deterministic == deterministic
        assert os.environ.get("NCCL_ALGO") == ("Ring" if deterministic else None)
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        init_device(threads, before)


def test_the_cpu_is_described_by_its_instruction_set() -> None:
    assert describe_device(torch.device("cpu")) == f"cpu ({torch.backends.cpu.get_cpu_capability()})"


def test_the_versions_are_those_that_are_installed() -> None:
    versions = library_versions()
    assert versions["torch"] == version("torch")
    assert {"numpy", "timm", "safetensors"} <= set(versions)
