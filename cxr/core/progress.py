"""Progress bars with the remaining time."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

DELAY = 2.0  # seconds before a bar appears


def progress(items: Iterable[Item], description: str, total: int, unit: str) -> Iterable[Item]:
    """Iterate over `items` and show a progress bar if standard error is a terminal; the bar is removed at the end.

    Args:
        items: the items to process.
        description: label of the bar.
        total: number of items.
        unit: what an item is, in the plural.
    """
    return tqdm(items, description, total, disable=None, delay=DELAY, leave=False, unit=f" {unit}")
