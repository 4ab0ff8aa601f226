import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxr.datasets.stratified_split import allocate_sizes, stratified_group_split

quick = settings(deadline=None, max_examples=50)


Case = tuple[NDArray[np.int64], NDArray[np.uint8], list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Groups of 1 to 5 images with arbitrary numbers, random labels, and the sizes of 1 to 4 bins."""
    group_sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = random.permutation(1000)[: len(group_sizes)]
    groups = random.permutation(np.repeat(numbers, group_sizes))
    labels = (random.random((len(groups), 3)) < (0.5, 0.1, 0.02)).astype(np.uint8)
    cuts = sorted(draw(st.lists(st.integers(0, len(groups)), max_size=3)))
    sizes = np.diff([0, *cuts, len(groups)])
    return groups, labels, [int(size) for size in sizes]


@quick
@given(cases(), st.integers(0, 5))
def test_a_group_is_in_one_bin(case: Case, seed: int) -> None:
    groups, labels, sizes = case
    bins = stratified_group_split(groups, labels, sizes, seed)
    assert bins.shape == groups.shape
    assert set(bins) <= set(range(len(sizes)))
    assert all(len(set(bins[groups == group])) == 1 for group in groups)
    assert np.array_equal(bins, stratified_group_split(groups, labels, sizes, seed))


@quick
@given(cases(), st.integers(0, 5))
def test_sizes_are_exact_if_single_images_can_fill_the_bins(case: Case, seed: int) -> None:
    groups, labels, sizes = case
    # A group of 5 fits into some bin as long as more than 4 images per bin are free, which these single images ensure.
    singles = 4 * len(sizes)
    groups = np.concatenate([groups, np.arange(2000, 2000 + singles)])
    labels = np.concatenate([labels, np.zeros((singles, 3), np.uint8)])
    sizes[-1] += singles
    assert list(np.bincount(stratified_group_split(groups, labels, sizes, seed), minlength=len(sizes))) == sizes


@quick
@given(cases(), st.integers(0, 5))
def test_sizes_are_exact_for_single_images(case: Case, seed: int) -> None:
    _, labels, sizes = case
    bins = stratified_group_split(np.arange(len(labels)), labels, sizes, seed)
    assert list(np.bincount(bins, minlength=len(sizes))) == sizes


@pytest.mark.parametrize("seed", range(5))
def test_each_class_keeps_its_prevalence(seed: int) -> None:
    labels = np.repeat(np.eye(4, dtype=np.uint8), [400, 100, 20, 2], axis=0)
    bins = stratified_group_split(np.arange(len(labels)), labels, [261, 261], seed)
    assert labels[bins == 0].sum(axis=0).tolist() == [200, 50, 10, 1]


def test_the_seed_changes_the_assignment() -> None:
    groups, labels = np.arange(200) // 2, np.zeros((200, 1), np.uint8)
    assignments = {stratified_group_split(groups, labels, [100, 100], seed).tobytes() for seed in range(10)}
    assert len(assignments) == 10


def test_a_group_larger_than_every_bin_stays_whole() -> None:
    bins = stratified_group_split(np.zeros(9, np.int64), np.ones((9, 1), np.uint8), [5, 4], seed=0)
    assert len(set(bins)) == 1


def test_sizes_that_do_not_add_up_are_rejected() -> None:
    with pytest.raises(ValueError, match="sizes add up to 4, not to 3 images"):
        stratified_group_split(np.arange(3), np.zeros((3, 1), np.uint8), [2, 2], seed=0)


@quick
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=4), st.integers(0, 200_000))
def test_allocated_sizes_add_up_and_are_within_one_of_the_exact_value(weights: list[int], count: int) -> None:
    sizes = allocate_sizes([weight / sum(weights) for weight in weights], count)
    assert sum(sizes) == count
    for size, weight in zip(sizes, weights, strict=True):
        assert abs(size * sum(weights) - weight * count) < sum(weights) * 1.0001


@pytest.mark.parametrize(
    ("fractions", "count", "sizes"),
    [
        ([0.7, 0.15, 0.15], 40_000, [28_000, 6_000, 6_000]),
        ([0.7, 0.15, 0.15], 112_120, [78_484, 16_818, 16_818]),
        ([0.7, 0.15, 0.15], 10, [7, 2, 1]),
        ([1 - 0.1, 0.1], 86_524, [77_872, 8_652]),
        ([0.7, 0.15, 0.15], 1, [1, 0, 0]),
        ([0.5, 0.5], 0, [0, 0]),
    ],
)
def test_allocated_sizes_match_examples(fractions: list[float], count: int, sizes: list[int]) -> None:
    assert allocate_sizes(fractions, count) == sizes


@pytest.mark.parametrize("seed", range(10))
def test_sizes_are_exact_without_patients_of_a_single_image(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(120), random.integers(2, 8, 120))
    labels = (random.random((len(groups), 15)) < 0.1).astype(np.uint8)
    sizes = allocate_sizes([0.7, 0.15, 0.15], len(groups))
    bins = stratified_group_split(groups, labels, sizes, seed)
    assert np.bincount(bins).tolist() == sizes
    assert all(len(set(bins[groups == group])) == 1 for group in range(120))


def test_if_groups_forbid_exact_sizes_the_nearest_are_found() -> None:
    groups = np.repeat(np.arange(20), 3)
    bins = stratified_group_split(groups, np.zeros((60, 15), np.uint8), [40, 10, 10], 1)
    assert np.abs(np.bincount(bins) - [40, 10, 10]).max() <= 2
