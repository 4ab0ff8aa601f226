"""Checks of the models and devices in params.yaml. Imports PyTorch, which takes seconds."""

import os
from collections.abc import Iterator

import torch

from cxr.core.errors import InputError
from cxr.models.classifier import check_model_name
from cxr.params import Params
from tools.doctor.checks import Check


def run_checks(params: Params) -> Iterator[Check]:
    """Yield the results for models and devices."""
    yield check_model_names(params)
    yield check_devices(params)


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
