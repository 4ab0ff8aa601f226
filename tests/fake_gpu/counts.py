"""The counts of the fake GPU that this process has loaded."""

import ctypes
from typing import NamedTuple


class Total(NamedTuple):
    """The number of occurrences of an event, and the bytes that it moved."""

    times: int
    bytes: int


def reset_counts() -> None:
    """Set all counts to 0."""
    ctypes.CDLL(None).fake_gpu_reset()


def read_counts() -> dict[str, Total]:
    """Return the total of each event: `kernel NAME`, `copy pinned to device`, `wait for a stream`, `cuDNN plan`, …"""
    text = ctypes.create_string_buffer(1 << 20)
    ctypes.CDLL(None).fake_gpu_counts(text, len(text))
    rows = [line.split("\t") for line in text.value.decode().splitlines()]
    return {event: Total(int(times), int(size)) for event, times, size in rows}


def times(prefix: str) -> int:
    """Return how often events occurred whose names start with `prefix`."""
    return sum(total.times for event, total in read_counts().items() if event.startswith(prefix))
