"""Memory that a process can still have, within what the system allows it, and memory given back to the system."""

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

SCARCE = 0.1
"""Share of a limit, or of the machine's memory, below which what is left is little."""
STEPS = 10


class Room(NamedTuple):
    """What is left for new work of so many bytes, caches that would be dropped for it included."""

    left: int
    of: int


def rooms(root: Path = Path("/")) -> list[Room]:
    """The machine's memory, and every limit of the control groups that this process is in.

    `root` is where /proc and /sys are.
    """
    machine = psutil.virtual_memory()
    return [Room(machine.available, machine.total), *_limits(root)]


def available_bytes(root: Path = Path("/")) -> int:
    """What this process can still have, at most."""
    return min(room.left for room in rooms(root))


def _limits(root: Path) -> Iterator[Room]:
    """The limits of control groups: version 2 has one tree of groups, version 1 one for memory alone."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for limit in ("memory.max", "memory.high"):  # above the latter it would crawl
                yield from _limits_of(root / "sys/fs/cgroup", group, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits_of(root / "sys/fs/cgroup/memory", group, *names)


def _limits_of(tree: Path, group: str, limit: str, used: str, cache: str) -> Iterator[Room]:
    """The limits of a group and of those around it; inside a container the tree may begin at the group."""
    place = tree / group.lstrip("/")
    for directory in [place, *place.parents]:
        try:
            allowed = (directory / limit).read_text(encoding="ascii").strip()
            if allowed != "max":
                lines = (directory / "memory.stat").read_text(encoding="ascii").splitlines()
                taken = int((directory / used).read_text(encoding="ascii"))
                left = int(allowed) - taken + int(dict(map(str.split, lines)).get(cache, 0))
                yield Room(max(0, left), int(allowed))
        except (OSError, ValueError):  # not there
            pass
        if directory == tree:
            return


def give_back() -> None:
    """Give the holes between blocks of memory that are in use back to the system, where its allocator can (glibc's).

    Tensors of ever new sizes leave holes, and the resident set grows with every size that was not there before.
    """
    if (trim := _trim()) is not None:
        trim(0)


def relieve(step: int) -> None:
    """Give back in every STEPS-th step, and in each where memory is scarce: it takes a tenth of a step's time."""
    if step % STEPS == 0 or any(room.left < SCARCE * room.of for room in rooms()):
        give_back()


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
