import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.core.prefetch import prefetch_map


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers()), st.integers(1, 4), st.integers(0, 9))
def test_it_gives_the_results_of_map(items: list[int], workers: int, ahead: int) -> None:
    assert list(prefetch_map(lambda item: item + 1, items, workers, ahead)) == [item + 1 for item in items]


def test_items_are_consumed_no_further_ahead_than_given() -> None:
    consumed: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            consumed.append(item)
            yield item

    results = prefetch_map(lambda item: item, items(), workers=2, ahead=5)
    for number in range(10):
        assert next(results) == number
        assert len(consumed) == number + 6


def test_workers_run_concurrently() -> None:
    # Each of the four calls waits for the others, so sequential calls would time out.
    barrier = threading.Barrier(4, timeout=20)
    assert sorted(prefetch_map(lambda _: barrier.wait(), range(4), workers=4, ahead=4)) == [0, 1, 2, 3]


def test_an_error_is_raised_at_its_item_and_ends_the_iteration() -> None:
    def fail_at_3(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = prefetch_map(fail_at_3, range(1000), workers=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_pending_items_are_cancelled_if_the_consumer_stops() -> None:
    done: list[int] = []

    def slow(item: int) -> int:
        time.sleep(0.05)
        done.append(item)
        return item

    results = prefetch_map(slow, range(1000), workers=1, ahead=50)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(done) < 10
