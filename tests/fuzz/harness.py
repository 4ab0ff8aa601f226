"""The property that all fuzzers test: an input gives a valid result or an error that is reported in one line."""

import os
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from hypothesis import HealthCheck, settings

from cxr.core.errors import InputError

Result = TypeVar("Result")

CPU_SECONDS = 10.0  # for one input
MEMORY = 2 * 2**30  # bytes for one input
COUNTS: Counter[str] = Counter()  # inputs, by the function that they were given to
_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def fuzz(examples: int) -> settings:
    """Return the settings of a fuzzer: `examples` inputs, the same in each run unless `FUZZ_MINUTES` is set.

    With `FUZZ_MINUTES`, the inputs are random, and those that fail are kept in `.hypothesis` and tried first next time.
    """
    if "FUZZ_MINUTES" in os.environ:
        return settings(max_examples=examples, deadline=None, print_blob=True, suppress_health_check=_CHECKS)
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=_CHECKS)


class TooSlow(BaseException):
    """Not an `Exception`, so that no handler of the tested code takes it for an error of the input."""


def outcome(
    function: Callable[..., Result], *arguments: object, errors: tuple[type[Exception], ...] = (InputError,)
) -> Result | None:
    """Return the result of `function`; None if it raises one of `errors`.

    Raises:
        AssertionError: if it takes more than `CPU_SECONDS` or `MEMORY`, even if the tested code reports that as an
            error of the input, or warns of an overflow.
    """
    COUNTS[f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"] += 1
    with warnings.catch_warnings(record=True) as caught, _limits():
        warnings.simplefilter("always")
        try:
            result = function(*arguments)
        except errors as error:
            _check_error(error)
            result = None
    overflows = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
    assert not overflows, overflows
    return result


def _check_error(error: Exception) -> None:
    assert not _ran_out_of_memory(error), f"more than {MEMORY:,} bytes of memory"
    assert str(error).strip(), "an error without a message"


def _ran_out_of_memory(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, MemoryError) or _ran_out_of_memory(error.__context__))


@contextmanager
def _limits() -> Iterator[None]:
    """Raise AssertionError in the block after `CPU_SECONDS` of this process, MemoryError beyond `MEMORY` more bytes."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    unlimited, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    start = time.process_time()
    try:
        yield
        # Code in C is not interrupted.
        assert time.process_time() - start < CPU_SECONDS, f"more than {CPU_SECONDS} s"
    except TooSlow:
        raise AssertionError(f"more than {CPU_SECONDS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, hard))
        signal.signal(signal.SIGPROF, handler)
