"""Timing of alternatives in alternation, so that varying load affects all of them, and tables of the results."""

import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

import torch

Candidates = dict[str, Callable[[], object]]
Times = dict[str, list[float]]


class Measurement(NamedTuple):
    """The duration of one call of a candidate."""

    wall: float  # seconds
    cpu: float  # seconds of all cores, of this process and the processes it waited for; other load affects it less


def time_alternating(candidates: Candidates, rounds: int) -> Times:
    """Return the wall time of each candidate in each of `rounds`, seconds; see `measure_alternating`."""
    measurements = measure_alternating(candidates, rounds)
    return {name: [measurement.wall for measurement in of_one] for name, of_one in measurements.items()}


def measure_alternating(candidates: Candidates, rounds: int) -> dict[str, list[Measurement]]:
    """Call every candidate once per round, in the same order; a first round, for warming up, is not counted."""
    measurements: dict[str, list[Measurement]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, candidate in candidates.items():
            synchronize()
            before = _now()
            candidate()
            synchronize()
            after = _now()
            if number:
                measurements[name].append(Measurement(after.wall - before.wall, after.cpu - before.cpu))
    return measurements


def synchronize() -> None:
    """Wait until the GPU has finished all work, if there is a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_times(title: str, times: Times, count: int, unit: str, baseline: str) -> None:
    """Print a Markdown table with a row for each candidate.

    Args:
        title: the title of the table.
        times: seconds, from `time_alternating`.
        count: number of units that a call processes.
        unit: name of the unit, in the singular.
        baseline: the candidate that relative times refer to.
    """
    rounds = len(times[baseline])
    print(f"\n{title} (n = {rounds} rounds of {count:,} {unit}s)\n")
    print(f"| method | ms per {unit}, median | min | max | {unit}s per second | relative time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, seconds in times.items():
        middle, low, high = (1000 * value / count for value in (median(seconds), min(seconds), max(seconds)))
        ratio = median(seconds) / median(times[baseline])
        print(f"| {name} | {middle:.2f} | {low:.2f} | {high:.2f} | {1000 / middle:,.1f} | {ratio:.3f} |")


def print_machine(libraries: Iterable[str]) -> None:
    """Print the processor, the GPU, and the versions of Python and `libraries`."""
    names = [platform.python_implementation() + " " + platform.python_version()]
    names += [f"{library} {version(library)}" for library in libraries]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else ["no GPU"]
    print(", ".join([f"{os.cpu_count()} cores of {_processor()}", *gpu, *names]))


def _now() -> Measurement:
    return Measurement(time.perf_counter(), sum(os.times()[:4]))


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (read by lines)
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
