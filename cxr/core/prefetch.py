"""Mapping a function over items with threads, ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed by threads.

    Useful for work that releases the global interpreter lock, such as reading files, decoding and copying. An exception
    in `function` is raised when its result is due.

    Args:
        function: called in a worker thread.
        items: consumed as results are taken.
        workers: number of threads.
        ahead: number of results that may be computed before they are needed; bounds the memory.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # If the consumer stops early, tasks that have not started are not needed.
            for future in pending:
                future.cancel()
