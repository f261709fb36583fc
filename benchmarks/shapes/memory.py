"""Memory of a GPU that is not there: which storages are alive, how much they are at the peak, and what holds it."""

import bisect
import functools
import sys
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

BLOCK = 512
"""CUDA's caching allocator hands out multiples of so many bytes."""
_SMALL, _SMALL_SEGMENT, _LARGE_SEGMENT, _UNIT = 2**20, 2 * 2**20, 20 * 2**20, 2**21
_HERE, _ROOT = Path(__file__).parent, Path(__file__).parents[2]


class Memory:
    """Storages of fake tensors by the order in which they come and go."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.log: list[tuple[int, int]] = []
        """(number of a storage, its bytes, negative when it is freed), in order."""
        self.holders: Counter[str] = Counter()
        """Bytes at the peak by the line of code that took them."""
        self._alive: dict[int, tuple[int, int, str, object]] = {}

    def see(self, tensor: torch.Tensor) -> bool:
        """Count the storage of `tensor` until it is freed; whether it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return False
        size = -(-max(storage.nbytes(), 1) // BLOCK) * BLOCK
        place = caller() if size >= _SMALL else "tensors below 1 MiB"
        number = len(self.log)
        self._alive[key] = (number, size, place, weakref.ref(storage, lambda _: self._free(key)))
        self.log.append((number, size))
        self.now += size
        if self.now > self.peak:
            if self.now > self.peak * 1.001:  # near enough, and not anew for every tensor
                self.holders = self._held()
            self.peak = self.now
        return True

    def _free(self, key: int) -> None:
        number, size, *_ = self._alive.pop(key)
        self.log.append((number, -size))
        self.now -= size

    def _held(self) -> Counter[str]:
        held: Counter[str] = Counter()
        for _, size, place, _ in self._alive.values():
            held[place] += size
        return held


def caller() -> str:
    """The innermost line of a library outside PyTorch, and the innermost line of this project below it."""
    frame: FrameType | None = sys._getframe(1)
    library = ""
    while frame is not None:
        kind, name = _file(frame.f_code.co_filename)
        if kind == "project":
            ours = f"{name}:{frame.f_lineno}"
            return f"{library} ← {ours}" if library else ours
        if kind == "library" and not library:
            library = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "autograd"


@functools.cache
def _file(name: str) -> tuple[str, str]:
    """Whose file it is, and its name in short."""
    path = Path(name)
    if path.is_relative_to(_ROOT) and ".venv" not in path.parts:
        return "" if path.is_relative_to(_HERE) else "project", str(path.relative_to(_ROOT))
    return "" if name.startswith("<") or "torch" in path.parts else "library", "/".join(path.parts[-2:])


@dataclass
class _Block:
    size: int
    pool: list[tuple[int, int]]
    before: int | None = None
    after: int | None = None


@dataclass
class Allocator:
    """What CUDA's caching allocator reserves for a log of `Memory`, as PyTorch comes.

    Blocks up to 1 MiB come from segments of 2 MiB, those below 10 MiB from segments of 20 MiB, larger ones from
    segments of their own size in steps of 2 MiB. The smallest free block that suffices is taken and split; free
    neighbours become one. No segment is given back while memory suffices. One stream is assumed.
    """

    reserved: int = 0
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _owner: dict[int, int] = field(default_factory=dict)
    _small: list[tuple[int, int]] = field(default_factory=list)
    _large: list[tuple[int, int]] = field(default_factory=list)
    _count: int = 0

    def replay(self, log: list[tuple[int, int]]) -> int:
        """The bytes reserved in the end, which are the most."""
        for number, size in log:
            if size > 0:
                self._take(number, size)
            else:
                self._give_back(number)
        return self.reserved

    def _new(self, block: _Block) -> int:
        self._count += 1
        self._blocks[self._count] = block
        return self._count

    def _take(self, number: int, size: int) -> None:
        small = size <= _SMALL
        pool = self._small if small else self._large
        place = bisect.bisect_left(pool, (size, 0))
        if place < len(pool):
            _, key = pool.pop(place)
        else:
            own = -(-size // _UNIT) * _UNIT
            segment = _SMALL_SEGMENT if small else _LARGE_SEGMENT if size < _LARGE_SEGMENT // 2 else own
            self.reserved += segment
            key = self._new(_Block(segment, pool))
        block = self._blocks[key]
        rest = block.size - size
        if rest >= BLOCK if small else rest > _SMALL:
            other = self._new(_Block(rest, pool, key, block.after))
            if block.after is not None:
                self._blocks[block.after].before = other
            block.after, block.size = other, size
            bisect.insort(pool, (rest, other))
        self._owner[number] = key

    def _give_back(self, number: int) -> None:
        key = self._owner.pop(number)
        block = self._blocks[key]
        for neighbour in (block.before, block.after):
            if neighbour is None:
                continue
            other = self._blocks[neighbour]
            place = bisect.bisect_left(block.pool, (other.size, neighbour))
            if block.pool[place : place + 1] != [(other.size, neighbour)]:
                continue  # in use
            del block.pool[place], self._blocks[neighbour]
            block.size += other.size
            if neighbour == block.before:
                block.before = other.before
                if other.before is not None:
                    self._blocks[other.before].after = key
            else:
                block.after = other.after
                if other.after is not None:
                    self._blocks[other.after].before = key
        bisect.insort(block.pool, (block.size, key))
