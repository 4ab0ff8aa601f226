"""Dealing groups of images into bins of given sizes, so that every class keeps its share in each."""

import numpy as np
from numpy.typing import NDArray

# A class may be off by this share of its target in a bin, or by one image: the unit that deviations are weighed in.
TOLERANCE = 0.01


def stratified_group_split(
    groups: NDArray[np.int64], labels: NDArray[np.uint8], sizes: list[int], seed: int
) -> NDArray[np.int64]:
    """Deal whole groups into `len(sizes)` bins of `sizes` images.

    Greedy: the groups that are hardest to place (many images, rare labels) come first, each goes to the bin that it
    brings nearest to its targets, and the many single images without a rare label come last and even out what is left.
    Equal groups are dealt in random order.

    Args:
        groups: int [n], the group (patient) of each image.
        labels: uint8 [n, classes], 1 where the class is there; any other value is not dealt evenly.
        sizes: images in each bin; they add up to n.
        seed: of the order of equal groups.

    Returns:
        int [n], the bin of each image. Where the groups allow no exact sizes, bins have the nearest found.
    """
    if sum(sizes) != len(groups):
        raise ValueError(f"sizes add up to {sum(sizes)}, not to {len(groups)} images")
    _, group_of_image = np.unique(groups, return_inverse=True)
    counts = _counts(group_of_image, labels)
    total = counts.sum(axis=0)
    targets = total * (np.array(sizes)[:, None] / max(len(groups), 1))
    targets[:, -1] = sizes
    bins = _deal_greedily(counts, targets, _hardest_first(counts, total, seed))
    _even_out(bins, counts, targets)
    return bins[group_of_image]


def allocate_sizes(shares: list[float], count: int) -> list[int]:
    """Split `count` into whole numbers nearest to `shares`, which add up to 1 (largest remainders)."""
    exact = np.array(shares) * count
    sizes = np.floor(exact + 1e-6).astype(int)
    largest = np.argsort(sizes - exact, kind="stable")[: count - sizes.sum()]
    sizes[largest] += 1
    return [int(size) for size in sizes]


def _counts(group_of_image: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Images of each class in each group, and in the last column all of its images: [groups, classes + 1]."""
    columns = [np.bincount(group_of_image, column) for column in (labels == 1).T]
    return np.stack([*columns, np.bincount(group_of_image)], axis=1).astype(float)


def _hardest_first(counts: NDArray[np.float64], total: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    difficulty = (counts / np.maximum(total, 1)).max(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    single = counts[shuffled, -1] == 1
    return shuffled[np.lexsort((-difficulty[shuffled], single))]


def _deal_greedily(
    counts: NDArray[np.float64], targets: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give each group to the bin where the squared deviations, in units of the tolerance, grow least.

    A deviation is from the bin's share of what has been dealt so far, so that every bin fills evenly.
    """
    shares = targets / np.maximum(targets.sum(axis=0), 1)
    weights = np.maximum(TOLERANCE * targets, 1) ** -2
    deviation = np.zeros_like(targets)
    room = targets[:, -1].copy()
    bins = np.empty(len(counts), np.int64)
    for group in order:
        count = counts[group]
        deviation -= shares * count
        cost = (weights * count * (2 * deviation + count)).sum(axis=1)
        fits = room >= count[-1]
        chosen = int(np.argmin(np.where(fits, cost, np.inf) if fits.any() else -room))
        deviation[chosen] += count
        room[chosen] -= count[-1]
        bins[group] = chosen
    return bins


def _even_out(bins: NDArray[np.int64], counts: NDArray[np.float64], targets: NDArray[np.float64]) -> None:
    """Where too few single images were left to fill the bins exactly, exchange groups until no exchange brings more."""
    while True:
        excess = np.bincount(bins, counts[:, -1], len(targets)) - targets[:, -1]
        fullest, emptiest = int(np.argmax(excess)), int(np.argmin(excess))
        exchange = _best_exchange(bins, counts, targets, (fullest, emptiest), min(excess[fullest], -excess[emptiest]))
        if exchange is None:
            return
        given, taken = exchange
        bins[given] = emptiest
        if taken is not None:
            bins[taken] = fullest


def _best_exchange(
    bins: NDArray[np.int64],
    counts: NDArray[np.float64],
    targets: NDArray[np.float64],
    between: tuple[int, int],
    gap: float,
) -> tuple[int, int | None] | None:
    """A group to give from the first bin to the second, and one to take back or None, that close most of `gap` images.

    Of the groups with the right numbers of images, those that leave the classes nearest to their targets.
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
    given = _least_harm(inside[0][counts[inside[0], -1] == sizes[0][size]], counts, deviations, weights)
    if size_back == 0:
        return given, None
    left = deviations + np.stack([-counts[given], counts[given]])
    candidates = inside[1][counts[inside[1], -1] == sizes[1][size_back - 1]]
    return given, _least_harm(candidates, counts, left[::-1], weights[::-1])


def _least_harm(
    candidates: NDArray[np.int64],
    counts: NDArray[np.float64],
    deviations: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> int:
    """The candidate whose move from the first bin to the second leaves the least squared deviations."""
    moved = counts[candidates]
    cost = weights[0] * (deviations[0] - moved) ** 2 + weights[1] * (deviations[1] + moved) ** 2
    return int(candidates[np.argmin(cost.sum(axis=1))])
