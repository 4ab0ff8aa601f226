"""Learning-rate schedule."""

import math

from cxr.training.params import TrainParams


def lr_multiplier(progress: float, params: TrainParams) -> float:
    """Return the factor, from 0 to 1, by which the initial learning rate is multiplied after `progress` epochs.

    The factor rises linearly during `warmup_epochs`. Then `cosine_restarts` is cosine annealing with warm restarts,
    updated once per epoch (Loshchilov and Hutter, ICLR 2017; PyTorch's CosineAnnealingWarmRestarts), and `cosine` is
    a single cosine to the last epoch, updated in every step.
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
