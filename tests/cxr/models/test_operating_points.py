import numpy as np
import torch

from cxr.models.operating_points import OperatingPoints

POINTS = [0.5, 0.02, 0.3, 0.9]


def rescaled(probabilities: np.ndarray) -> np.ndarray:
    below = probabilities / (2 * np.array(POINTS))
    above = 1 - (1 - probabilities) / (2 * (1 - np.array(POINTS)))
    return np.where(probabilities < POINTS, below, above)


def test_probabilities_are_rescaled_so_that_the_operating_point_is_one_half() -> None:
    logits = torch.linspace(-8, 8, 101)[:, None].expand(-1, 4)
    found = OperatingPoints(POINTS)(logits).double().sigmoid().numpy()
    np.testing.assert_allclose(found, rescaled(logits.double().sigmoid().numpy()), atol=1e-6)
    at_point = OperatingPoints(POINTS)(torch.tensor(POINTS).logit()[None])
    np.testing.assert_allclose(at_point, np.zeros((1, 4)), atol=1e-5)


def test_a_point_of_one_half_changes_nothing() -> None:
    logits = torch.tensor([[-90.0], [-3.0], [0.0], [3.0], [90.0]])
    torch.testing.assert_close(OperatingPoints([0.5])(logits), logits, rtol=1e-5, atol=1e-6)


def test_ranks_are_kept_and_gradients_are_finite_at_extreme_logits() -> None:
    logits = torch.linspace(-100, 100, 401)[:, None].expand(-1, 4).clone().requires_grad_()
    output = OperatingPoints(POINTS)(logits)
    assert bool((output.diff(dim=0) > 0).all())
    output.sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad > 0).all())
    assert bool(logits.grad.isfinite().all())
