"""Rows that stay on disk: a file of examples, selections of it at 4 bytes a row, and data sets for the trainer.

No torch here.
"""

import hashlib
import json
import operator
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from sft.data.records import CATEGORIES, Example
from sft.system.errors import UserError

if TYPE_CHECKING:  # these take seconds
    import pyarrow
    from datasets import Dataset


NAMES = sorted(CATEGORIES)
CODES = {category: code for code, category in enumerate(NAMES)}
"""A category's place in alphabetical order, which is what memory holds of it."""

FIELDS = ("index", "instruction", "input", "output", "category")
"""What the trainer's data sets hold of an example."""

BATCH = 1000
RECENT = 2**14


class RowFile(Sequence[Example]):
    """Examples in a nameless temporary file, read one at a time; 9 bytes of memory a row.

    `sha256` is the hash of the rows' content, `categories` their codes. Raises UserError when the disk is full.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self.categories = bytearray()
        self._file = tempfile.TemporaryFile(buffering=2**20)  # noqa: SIM115, it is open as long as this object
        self._starts = array("Q", [0])
        digest = hashlib.sha256()
        for example in examples:
            line = json.dumps(_values(example), ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            self._write(line)
            self._starts.append(self._starts[-1] + len(line))
            self.categories.append(CODES[example.category])
        self._write()
        self.sha256 = digest.hexdigest()

    def _write(self, line: bytes | None = None) -> None:
        try:
            self._file.flush() if line is None else self._file.write(line)
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: rows cannot be written there: {error.strerror}; set TMPDIR to a directory "
                "with room for the data"
            ) from None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, position: Any) -> Any:
        start, end = self._starts[position], self._starts[position + 1]
        fields = json.loads(os.pread(self._file.fileno(), end - start, start).decode())
        fields[-1] = tuple(fields[-1])
        return Example(*fields)


def _values(example: Example) -> tuple:
    return (
        example.index, example.instruction, example.input, example.output, example.category, example.answers,
    )  # fmt: skip


class Rows(Sequence[Example]):
    """A selection of examples by position: a sequence like a list of them, of which memory holds the positions.

    `source` holds the examples, `codes` (uint8) the category of each, and `positions` (int32) says which of them,
    in which order; one may come several times.
    """

    def __init__(self, source: Sequence[Example], codes: np.ndarray, positions: np.ndarray) -> None:
        self._source = source
        self._codes = codes
        self.positions = positions

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Rows":
        """All of the examples, in their order."""
        if isinstance(examples, Rows):
            return examples
        if isinstance(examples, RowFile):
            codes = np.frombuffer(examples.categories, np.uint8)
        else:
            codes = np.array([CODES[example.category] for example in examples], np.uint8)
        return cls(examples, codes, np.arange(len(examples), dtype=np.int32))

    def select(self, places: np.ndarray) -> "Rows":
        """The rows at these places of this selection, in the places' order; or those where a mask is true."""
        return Rows(self._source, self._codes, self.positions[places])

    def of_categories(self, categories: Collection[str]) -> "Rows":
        """The rows of some categories."""
        return self.select(np.isin(self.categories, [CODES[category] for category in categories]))

    @property
    def categories(self) -> np.ndarray:
        """Each row's category, as its place in `NAMES` (uint8)."""
        return self._codes[self.positions]

    def counts(self) -> Counter[str]:
        """Rows by category; a row that comes several times counts as often."""
        counts = np.bincount(self.categories, minlength=len(NAMES)).tolist()
        return Counter({category: count for category, count in zip(NAMES, counts, strict=True) if count})

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "Example | Rows":
        if isinstance(place, slice):
            return Rows(self._source, self._codes, self.positions[place])
        return self._source[int(self.positions[place])]

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), BATCH):
            yield from map(self._source.__getitem__, self.positions[start : start + BATCH].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


class SeenTexts:
    """Texts met so far, as hashes: 16 bytes a text in a sorted array, but for the last few in a set."""

    def __init__(self) -> None:
        self._recent: set[bytes] = set()
        self._older = np.empty(0, "S16")

    def add(self, text: str) -> bool:
        """Whether the text is met for the first time."""
        digest = short_digest(text)
        place = self._older.searchsorted(np.bytes_(digest))
        if digest in self._recent or self._older[place : place + 1].tobytes() == digest:
            return False
        self._recent.add(digest)
        if len(self._recent) == RECENT:
            self._older = np.concatenate([self._older, np.array(list(self._recent), "S16")])
            self._older.sort(kind="stable")  # which merges what is in order already
            self._recent.clear()
        return True


def short_digest(text: str) -> bytes:
    """The first 16 bytes of a text's SHA-256: enough to tell texts apart, and to order them as the whole does."""
    return hashlib.sha256(text.encode()).digest()[:16]


def as_dataset(rows: Rows, data_sha256: str) -> "Dataset":
    """The rows as a memory-mapped data set with the columns `FIELDS`.

    Its fingerprint depends on the hash of the data's content and on which rows of it these are, and on nothing else.
    Raises UserError when the disk is full.
    """
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.string()) for name in FIELDS])
    examples = iter(rows)

    def batches() -> "Iterator[pyarrow.RecordBatch]":
        while batch := [{name: getattr(e, name) for name in FIELDS} for e in islice(examples, BATCH)]:
            yield pyarrow.RecordBatch.from_pylist(batch, schema)

    fingerprint = hashlib.sha256(data_sha256.encode() + rows.positions.tobytes()).hexdigest()
    return temporary_dataset(schema, batches(), fingerprint)


def temporary_dataset(
    schema: "pyarrow.Schema", batches: "Iterable[pyarrow.RecordBatch]", fingerprint: str | None = None
) -> "Dataset":
    """A memory-mapped data set in a file that is gone when it is not used any more.

    Raises UserError when the disk is full.
    """
    with tempfile.TemporaryDirectory() as directory:  # what is mapped stays until nobody needs it
        path = Path(directory) / "rows.arrow"
        try:
            with path.open("wb") as file:
                write_batches(file, schema, batches)
        except OSError as error:
            raise UserError(f"{directory}: rows cannot be written there: {error}; set TMPDIR") from None
        return mapped_dataset(path, fingerprint)


def write_batches(file: BinaryIO, schema: "pyarrow.Schema", batches: "Iterable[pyarrow.RecordBatch]") -> None:
    """Write what `mapped_dataset` reads."""
    import pyarrow

    with pyarrow.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            del batch  # with two at a time, the allocator gives nothing back: memory grew by 340 bytes a row


def mapped_dataset(path: Path, fingerprint: str | None) -> "Dataset":
    """The data set in a file; memory holds what is looked at. None: a fingerprint of chance."""
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=fingerprint)
