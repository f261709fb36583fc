"""Memory that a process can still have, within what the system allows it, and memory given back to the system."""

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil

SCARCE = 0.1
"""Share of the machine's memory below which what is available is little."""
STEPS = 10


def available_bytes(root: Path = Path("/")) -> int:
    """What this machine has left for new work, caches that it would drop for it included, within every limit of the
    control groups that this process is in. `root` is where /proc and /sys are."""
    return min([psutil.virtual_memory().available, *_rests(root)])


def _rests(root: Path) -> Iterator[int]:
    """What each limit leaves: version 2 has one tree of groups, version 1 one for memory alone."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for limit in ("memory.max", "memory.high"):  # above the latter it would crawl
                yield from _rests_of(root / "sys/fs/cgroup", group, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _rests_of(root / "sys/fs/cgroup/memory", group, *names)


def _rests_of(tree: Path, group: str, limit: str, used: str, cache: str) -> Iterator[int]:
    """What the limits of a group and of those around it leave; inside a container the tree may begin at the group."""
    place = tree / group.lstrip("/")
    for directory in [place, *place.parents]:
        try:
            allowed = (directory / limit).read_text(encoding="ascii").strip()
            if allowed != "max":
                lines = (directory / "memory.stat").read_text(encoding="ascii").splitlines()
                taken = int((directory / used).read_text(encoding="ascii"))
                yield max(0, int(allowed) - taken + int(dict(map(str.split, lines)).get(cache, 0)))
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
    if step % STEPS == 0 or available_bytes() < SCARCE * psutil.virtual_memory().total:
        give_back()


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
