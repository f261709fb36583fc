"""Bars for what a person waits for."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from sft.system.processes import RANK

Item = TypeVar("Item")


def watched(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar on the terminal where they take longer than a second; `what` says in words what goes on.

    Nothing is shown in a pipe, and by one process alone. None: nobody knows how many there are.
    """
    silent = None if RANK == 0 else True  # None: where there is no terminal
    return tqdm(items, what, total, leave=False, disable=silent, delay=1, unit="", unit_scale=True)


class EstimatedBar(tqdm):
    """A bar of items that take unlike times: `seconds_left` is told by whoever knows better; None: nobody does yet."""

    SHOWN = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s [{elapsed}<{remaining}]"

    def __init__(self, seconds_left: Callable[[], float | None], **arguments: Any) -> None:
        self.seconds_left = seconds_left
        seconds = 0.5 if sys.stderr.isatty() else 10  # in a file every line stays
        super().__init__(**arguments, miniters=0, mininterval=seconds, bar_format=self.SHOWN)

    def update_time(self) -> None:
        """Show the time again, if it was not for a while."""
        self.update(0)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm shows. The time that is left follows from a pace there."""
        shown = super().format_dict
        items, left = shown["total"] - shown["n"], self.seconds_left()
        shown["rate"] = items / left if items and left else None
        return shown
