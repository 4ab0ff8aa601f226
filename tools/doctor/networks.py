"""Whether timm knows the networks of params.yaml, and whether this machine has the devices. Loads PyTorch: seconds."""

import os
from collections.abc import Iterator

import torch

from cxr.core.errors import InputError
from cxr.models.classifier import check_model_name
from cxr.params import Params
from tools.doctor.remarks import Remark


def remarks(params: Params) -> Iterator[Remark]:
    """Networks, then devices."""
    yield models(params)
    yield devices(params)


def models(params: Params) -> Remark:
    """Every network that timm does not know, with names that it does."""
    wrong = []
    for model in params.models:
        try:
            check_model_name(model)
        except InputError as error:
            wrong.append(str(error).removeprefix("models: "))
    if wrong:
        return Remark("problem", "models", "\n".join(wrong))
    return Remark("ok", "models", f"timm knows {', '.join(params.models)}")


def devices(params: Params) -> Remark:
    """Whether each process has a GPU of its own, or where there is none, a core."""
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    said = f"{params.devices} for each network"
    if 0 < gpus < params.devices:
        hint = "lower devices, or start the training on several machines (docs/gpus.md)"
        return Remark("problem", "devices", f"{said}, and this machine has {gpus} GPUs: {hint}")
    if not gpus and params.devices > cores:
        return Remark("warning", "devices", f"{said}, which share {cores} cores, for there is no GPU: lower devices")
    return Remark("ok", "devices", said)
