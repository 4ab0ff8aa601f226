"""Estimate of the GPU memory that training takes. It needs no GPU: a step is traced without any data."""

from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from cxr.models.classifier import Architecture, Classifier, build_classifier
from cxr.params import Params

# What PyTorch's allocator does not count: the context of CUDA, and the workspace of cuDNN.
RESERVE = 1e9  # bytes
# Copies of the parameters in float32: weights, gradients, two moments of AdamW, and the weights of the best epoch.
COPIES = 5
BYTES = 4


class MemoryEstimate(NamedTuple):
    """The GPU memory of one process in training, bytes: `fixed`, and `per_image` for each image of its batch."""

    fixed: float
    per_image: float

    def total(self, batch_size: int) -> float:
        """Return the memory for batches of this size, bytes."""
        return self.fixed + batch_size * self.per_image

    def largest_batch(self, memory: float) -> int:
        """Return the number of images of a batch that fits into `memory` bytes; 0 if none does."""
        return max(0, int((memory - self.fixed) / self.per_image))


def estimate_memory(model: str, params: Params) -> MemoryEstimate:
    """Estimate the memory of training `model` with `params`, without compilation.

    Most of it are the tensors that the forward pass saves for the backward pass. They grow linearly with the batch.

    Raises:
        InputError: if the model cannot be built for this image size.
        RuntimeError: if PyTorch cannot trace it without data.
    """
    architecture = Architecture(model, params.in_chans, params.image_size, params.attention_pool)
    with torch.device("meta"):  # without the time and the memory for its weights
        classifier = build_classifier(architecture).train()
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}.get(params.amp_dtype, torch.float16)
    two, four = (saved_bytes(classifier, batch, params.image_size, dtype) for batch in (2, 4))
    per_image = (four - two) / 2
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    copies = COPIES + bool(params.ema_decay)
    return MemoryEstimate(two - 2 * per_image + BYTES * copies * parameters + RESERVE, per_image)


def saved_bytes(classifier: Classifier, batch: int, image_size: int, dtype: torch.dtype) -> int:
    """Return the bytes that a forward pass in mixed precision saves for the backward pass, without the parameters."""
    sizes: dict[int, int] = {}
    saved = []  # kept, so that no two tensors have one address

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        saved.append(tensor)
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        state = fake_state(classifier)
        images = torch.empty(batch, 1, image_size, image_size, device="cuda")
        # Unlike torch.autocast, these functions also work without a GPU.
        torch.set_autocast_dtype("cuda", dtype)
        torch.set_autocast_enabled("cuda", dtype != torch.float32)
        try:
            functional_call(classifier, state, images)
        finally:
            torch.set_autocast_enabled("cuda", False)  # noqa: FBT003 (it has no names for its arguments)
            torch.clear_autocast_cache()
    for tensor in state.values():
        sizes.pop(tensor.untyped_storage()._cdata, None)
    return sum(sizes.values())


def fake_state(classifier: Classifier) -> dict[str, torch.Tensor]:
    """Return tensors without data in the place of the parameters and buffers."""
    tensors = {**dict(classifier.named_parameters()), **dict(classifier.named_buffers())}
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda").requires_grad_(tensor.requires_grad)
        for name, tensor in tensors.items()
    }
