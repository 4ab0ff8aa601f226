"""Operating points of imported networks, as part of their output."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class OperatingPoints(nn.Module):
    """Rescale probabilities so that the operating point t of each class becomes 0.5.

    A probability p becomes p / 2t below t, and 1 - (1 - p) / 2(1 - t) from t on, as in torchxrayvision, whose published
    probabilities are rescaled in this way. The order of the probabilities of a class does not change. With t = 0.5, p
    is unchanged.
    """

    thresholds: Tensor

    def __init__(self, thresholds: Sequence[float]) -> None:
        """Create the layer from the operating point of each class, between 0 and 1, as a probability."""
        super().__init__()
        # Not persistent: a model file holds them in its description.
        self.register_buffer("thresholds", torch.tensor(thresholds), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logits of the rescaled probabilities, float [images, classes], for `logits` of this shape."""
        below = logsigmoid(logits) - (2 * self.thresholds).log()
        above = logsigmoid(-logits) - (2 * (1 - self.thresholds)).log()
        return torch.where(logits < self.thresholds.logit(), _logit_of_exp(below), -_logit_of_exp(above))


def _logit_of_exp(log_probability: Tensor) -> Tensor:
    """Return the logit of exp(`log_probability`), which is at most 0.5 where the result is used."""
    # Without the limit, the gradient where it is not used could be nan.
    limited = log_probability.clamp(max=log(0.5))
    return limited - (-torch.expm1(limited)).log()
