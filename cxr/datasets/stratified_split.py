"""Stratified group split: assign whole groups to splits of given sizes, keeping the prevalence of each class.

A greedy assignment in the manner of iterative stratification (Sechidis et al., ECML PKDD 2011), applied to groups
instead of single images, followed by exchanges that make the sizes exact.
"""

import numpy as np
from numpy.typing import NDArray

# The unit of deviations: this fraction of the target count of a class in a bin, or one image if that is more.
TOLERANCE = 0.01


def stratified_group_split(
    groups: NDArray[np.int64], labels: NDArray[np.uint8], sizes: list[int], seed: int
) -> NDArray[np.int64]:
    """Assign whole groups to bins of `sizes` images, keeping the prevalence of each class.

    Groups that are hard to assign (many images, rare labels) come first; each goes to the bin whose deviations from its
    targets it increases least. Single images without rare labels come last and fill the bins. Equal groups are assigned
    in random order.

    Args:
        groups: int [n], the group (patient) of each image.
        labels: uint8 [n, classes], 1 for a positive label; only positives are balanced.
        sizes: number of images in each bin; the sum is n.
        seed: seed of the order of equal groups.

    Returns:
        int [n], the bin of each image. If the groups do not allow exact sizes, the bins have the nearest sizes found.

    Raises:
        ValueError: if `sizes` do not add up to n.
    """
    if sum(sizes) != len(groups):
        raise ValueError(f"sizes add up to {sum(sizes)}, not to {len(groups)} images")
    _, group_of_image = np.unique(groups, return_inverse=True)
    counts = _counts(group_of_image, labels)
    total = counts.sum(axis=0)
    targets = total * (np.array(sizes)[:, None] / max(len(groups), 1))
    targets[:, -1] = sizes
    bins = _assign_greedily(counts, targets, _hardest_first(counts, total, seed))
    _adjust_sizes(bins, counts, targets)
    return bins[group_of_image]


def allocate_sizes(fractions: list[float], count: int) -> list[int]:
    """Return integers that add up to `count`, in proportion to `fractions` (sum 1), by the largest remainder method."""
    exact = np.array(fractions) * count
    sizes = np.floor(exact + 1e-6).astype(int)
    largest = np.argsort(sizes - exact, kind="stable")[: count - sizes.sum()]
    sizes[largest] += 1
    return [int(size) for size in sizes]


def _counts(group_of_image: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the positives of each class in each group and, in the last column, its images: [groups, classes + 1]."""
    columns = [np.bincount(group_of_image, column) for column in (labels == 1).T]
    return np.stack([*columns, np.bincount(group_of_image)], axis=1).astype(float)


def _hardest_first(counts: NDArray[np.float64], total: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return the order of the groups: the difficulty is the largest fraction of a class that a group has."""
    difficulty = (counts / np.maximum(total, 1)).max(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    is_single = counts[shuffled, -1] == 1
    return shuffled[np.lexsort((-difficulty[shuffled], is_single))]


def _assign_greedily(
    counts: NDArray[np.float64], targets: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Assign each group to the bin with the smallest increase of the squared deviations, in units of the tolerance.

    A deviation is the difference to the bin's fraction of what has been assigned so far, so that all bins fill evenly.
    """
    fractions = targets / np.maximum(targets.sum(axis=0), 1)
    weights = np.maximum(TOLERANCE * targets, 1) ** -2
    deviation = np.zeros_like(targets)
    capacity = targets[:, -1].copy()
    bins = np.empty(len(counts), np.int64)
    for group in order:
        count = counts[group]
        deviation -= fractions * count
        cost = (weights * count * (2 * deviation + count)).sum(axis=1)
        fits = capacity >= count[-1]
        chosen = int(np.argmin(np.where(fits, cost, np.inf) if fits.any() else -capacity))
        deviation[chosen] += count
        capacity[chosen] -= count[-1]
        bins[group] = chosen
    return bins


def _adjust_sizes(bins: NDArray[np.int64], counts: NDArray[np.float64], targets: NDArray[np.float64]) -> None:
    """Exchange groups between the fullest and the emptiest bin until the sizes are exact or no exchange helps.

    Needed if there are too few single images to fill the bins exactly. Changes `bins` in place.
    """
    while True:
        excess = np.bincount(bins, counts[:, -1], len(targets)) - targets[:, -1]
        fullest, emptiest = int(np.argmax(excess)), int(np.argmin(excess))
        exchange = _best_exchange(bins, counts, targets, (fullest, emptiest), min(excess[fullest], -excess[emptiest]))
        if exchange is None:
            return
        given, returned = exchange
        bins[given] = emptiest
        if returned is not None:
            bins[returned] = fullest


def _best_exchange(
    bins: NDArray[np.int64],
    counts: NDArray[np.float64],
    targets: NDArray[np.float64],
    between: tuple[int, int],
    gap: float,
) -> tuple[int, int | None] | None:
    """Return the exchange of groups between two bins that closes most of a gap of `gap` images.

    Among groups with the same number of images, the one with the lowest cost is chosen.

    Returns:
        The group to move from the first bin to the second, and the group to move back or None. None if no exchange
        reduces the gap.
    """
    inside = [np.flatnonzero(bins == number) for number in between]
    sizes = [np.unique(counts[groups, -1]) for groups in inside]
    closed = sizes[0][:, None] - np.append(0, sizes[1])
    closed = np.where((closed > 0) & (closed <= gap), closed, 0)
    if not closed.any():
        return None
    size, size_back = np.unravel_index(np.argmax(closed), closed.shape)
    deviations = np.stack([counts[groups].sum(axis=0) for groups in inside]) - targets[list(between)]
    weights = np.maximum(TOLERANCE * targets[list(between)], 1) ** -2
    given = _lowest_cost(inside[0][counts[inside[0], -1] == sizes[0][size]], counts, deviations, weights)
    if size_back == 0:
        return given, None
    remaining = deviations + np.stack([-counts[given], counts[given]])
    candidates = inside[1][counts[inside[1], -1] == sizes[1][size_back - 1]]
    return given, _lowest_cost(candidates, counts, remaining[::-1], weights[::-1])


def _lowest_cost(
    candidates: NDArray[np.int64],
    counts: NDArray[np.float64],
    deviations: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> int:
    """Return the group whose move from the first bin to the second gives the smallest sum of squared deviations."""
    moved = counts[candidates]
    cost = weights[0] * (deviations[0] - moved) ** 2 + weights[1] * (deviations[1] + moved) ** 2
    return int(candidates[np.argmin(cost.sum(axis=1))])
