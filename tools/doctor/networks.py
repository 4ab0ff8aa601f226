"""Checks of the models, devices and batches in params.yaml. Imports PyTorch, which takes seconds."""

import math
import os
from collections.abc import Iterator

import torch

from cxr.core.errors import InputError, first_lines
from cxr.models.classifier import check_model_name
from cxr.models.image_store import RESIDENT_FRACTION
from cxr.params import Params
from tools.doctor.checks import Check
from tools.doctor.memory import MemoryEstimate, estimate_memory


def run_checks(params: Params) -> Iterator[Check]:
    """Yield the results for models, devices and GPU memory."""
    names = check_model_names(params)
    yield names
    yield check_devices(params)
    if names.level == "ok":
        yield check_memory(params)


def check_model_names(params: Params) -> Check:
    """Check that timm has all models; suggest names for those that it lacks."""
    unknown = []
    for model in params.models:
        try:
            check_model_name(model)
        except InputError as error:
            unknown.append(str(error).removeprefix("models: "))
    if unknown:
        return Check("problem", "models", "\n".join(unknown))
    return Check("ok", "models", f"timm has {', '.join(params.models)}")


def check_devices(params: Params) -> Check:
    """Check that there is a GPU for each process, or on a machine without GPUs, a core."""
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    message = f"{params.devices} for each network"
    if 0 < gpus < params.devices:
        hint = "lower devices, or train on several machines (docs/gpus.md)"
        return Check("problem", "devices", f"{message}, but this machine has {gpus} GPUs: {hint}")
    if not gpus and params.devices > cores:
        return Check("warning", "devices", f"{message}, but this machine has {cores} cores and no GPU: lower devices")
    return Check("ok", "devices", message)


def check_memory(params: Params) -> Check:
    """Check that a batch fits into the memory of the GPU; without a GPU, report what it would take."""
    try:
        estimates = {model: estimate_memory(model, params) for model in params.models}
    except InputError as error:
        return Check("problem", "GPU memory", f"models: {error}")
    except RuntimeError as error:
        return Check("ok", "GPU memory", f"cannot be estimated: {first_lines(error)}")
    batch = -(-params.batch_size // params.devices)
    model, estimate = max(estimates.items(), key=lambda item: item[1].total(batch))
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else math.inf
    images = params.sample.size * params.image_size**2
    if images <= RESIDENT_FRACTION * memory:  # otherwise they are streamed
        estimate = estimate._replace(fixed=estimate.fixed + images)
    return compare_memory(f"{model}, {batch} images on each GPU", estimate, batch, memory)


def compare_memory(what: str, estimate: MemoryEstimate, batch: int, memory: float) -> Check:
    """Compare the estimate for a `batch` with the `memory` of a GPU, bytes; infinite without a GPU."""
    needed = f"{what}: about {estimate.total(batch) / 1e9:.1f} GB"
    if math.isinf(memory):
        return Check("ok", "GPU memory", f"{needed} on a machine with a GPU")
    if estimate.total(batch) > memory:
        hint = f"lower batch_size to {estimate.largest_batch(memory):,} for each GPU"
        return Check("warning", "GPU memory", f"{needed}, but the GPU has {memory / 1e9:.1f} GB: {hint}")
    return Check("ok", "GPU memory", f"{needed} of {memory / 1e9:.1f} GB")
