"""Timing of candidates in turn, so that a busy minute slows all of them, and how the result is shown."""

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


class Turn(NamedTuple):
    """What one turn of a candidate took, seconds."""

    wall: float
    processor: float  # of all cores, by this process and by those that it waited for: others disturb it less


def alternate(candidates: Candidates, rounds: int) -> Times:
    """Seconds of each candidate in each of `rounds`, in which all have their turn; one more at first is not counted."""
    turns = take_turns(candidates, rounds)
    return {name: [turn.wall for turn in of_one] for name, of_one in turns.items()}


def take_turns(candidates: Candidates, rounds: int) -> dict[str, list[Turn]]:
    """The same, with the processor's seconds as well."""
    turns: dict[str, list[Turn]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, work in candidates.items():
            finish()
            before = _now()
            work()
            finish()
            after = _now()
            if number:
                turns[name].append(Turn(after.wall - before.wall, after.processor - before.processor))
    return turns


def finish() -> None:
    """Wait until a GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def show(title: str, times: Times, count: int, unit: str, baseline: str) -> None:
    """Print a row of a Markdown table for each candidate.

    Args:
        title: what is measured.
        times: seconds, from `alternate`.
        count: how many of `unit` one turn works through.
        unit: what is counted, in the singular.
        baseline: the candidate that the ratios speak of.
    """
    rounds = len(times[baseline])
    print(f"\n{title} (n = {rounds} rounds of {count:,} {unit}s)\n")
    print(f"| way | ms per {unit}, median | min | max | {unit}s a second | time, relative |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, seconds in times.items():
        middle, low, high = (1000 * value / count for value in (median(seconds), min(seconds), max(seconds)))
        ratio = median(seconds) / median(times[baseline])
        print(f"| {name} | {middle:.2f} | {low:.2f} | {high:.2f} | {1000 / middle:,.1f} | {ratio:.3f} |")


def show_machine(libraries: Iterable[str]) -> None:
    """Print the processor, and the versions of `libraries`."""
    names = [platform.python_implementation() + " " + platform.python_version()]
    names += [f"{library} {version(library)}" for library in libraries]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else ["no GPU"]
    print(", ".join([f"{os.cpu_count()} cores of {_processor()}", *gpu, *names]))


def _now() -> Turn:
    return Turn(time.perf_counter(), sum(os.times()[:4]))


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (a line at a time)
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
