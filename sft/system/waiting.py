"""A bar for what a person waits for."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from sft.system.processes import RANK

Item = TypeVar("Item")


def watched(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar on the terminal where they take longer than a second; `what` says in words what goes on.

    Nothing is shown in a pipe, and by one process alone. None: nobody knows how many there are.
    """
    silent = None if RANK == 0 else True  # None: where there is no terminal
    return tqdm(items, what, total, leave=False, disable=silent, delay=1, unit="", unit_scale=True)
