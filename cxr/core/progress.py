"""Bars that tell how far a work is, and the time that is left."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

DELAY = 2.0  # seconds: what is done sooner shows none


def progress(items: Iterable[Item], what: str, total: int, unit: str) -> Iterable[Item]:
    """`items`, with a bar while they are worked on: where a terminal watches, and gone at the end.

    Args:
        items: `total` of them.
        what: is done with them.
        total: how many there are.
        unit: their name, in the plural.
    """
    return tqdm(items, what, total, disable=None, delay=DELAY, leave=False, unit=f" {unit}")
