"""The learning rate over a training, as a share of its highest."""

import math

from cxr.training.params import TrainParams


def lr_multiplier(progress: float, params: TrainParams) -> float:
    """What the learning rate is multiplied by after `progress` epochs, from 0 to 1.

    It rises in a straight line over `warmup_epochs`. Then `restarts` goes down a cosine by whole epochs, again and
    again (Loshchilov and Hutter, ICLR 2017; PyTorch's CosineAnnealingWarmRestarts stepped once an epoch), and `cosine`
    goes down a single one, step by step, to the last epoch.
    """
    if progress < params.warmup_epochs:
        return progress / params.warmup_epochs
    since = progress - params.warmup_epochs
    if params.lr_schedule == "cosine":
        return _cosine(since / (params.epochs - params.warmup_epochs))
    epoch, length = math.floor(since), params.T_0
    while epoch >= length:
        epoch, length = epoch - length, length * params.T_mult
    return _cosine(epoch / length)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
