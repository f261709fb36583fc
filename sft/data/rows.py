"""Rows on disk: an Arrow file, memory-mapped, and selections of it at 4 bytes a row. No torch here."""

import hashlib
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset
from datasets.table import InMemoryTable, MemoryMappedTable

from sft.data.records import FIELDS, Example
from sft.system.errors import UserError

_TEXT = pyarrow.large_string()  # a thousand rows may hold more than 2 GB
_TYPES = {"index": pyarrow.string(), "category": pyarrow.string(), "answers": pyarrow.list_(_TEXT)}
_HASHES = [(name, pyarrow.uint64()) for name in ("text_hash", "index_hash")]
SCHEMA = pyarrow.schema([(name, _TYPES.get(name, _TEXT)) for name in FIELDS] + _HASHES)
"""The columns of rows: the fields of `Example`, and two hashes that say in which order rows are divided.

`text_hash` is that of what must not be torn apart (see `sft.data.split`), `index_hash` of the index.
"""

BATCH = 1000
RECENT = 2**14


def write_rows(rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """Write rows with the fields of `Example` to a nameless file; they come back with the columns SCHEMA.

    Their fingerprint is the SHA-256 of their content. Raises UserError when the disk is full.
    """
    digest = hashlib.sha256()
    left = iter(rows)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        while batch := list(islice(left, BATCH)):
            for row in batch:
                values = [row[name] for name in FIELDS]
                digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
            columns = {name: [row[name] for row in batch] for name in FIELDS}
            columns["text_hash"] = [number(_inseparable(row)) for row in batch]
            columns["index_hash"] = [number(row["index"]) for row in batch]
            yield pyarrow.RecordBatch.from_pydict(columns, SCHEMA)

    return temporary_dataset(SCHEMA, batches(), digest.hexdigest)


def _inseparable(row: Mapping[str, Any]) -> str:
    """What a row shares with others of its unit in the split: its context or, without one, its instruction."""
    kind, text = ("context", row["input"]) if row["input"] else ("instruction", row["instruction"])
    return f"{kind}:{' '.join(unicodedata.normalize('NFKC', text).split())}"


def short_digest(text: str) -> bytes:
    """The first 16 bytes of a text's SHA-256: enough to tell texts apart, and to order them as the whole does."""
    return hashlib.sha256(text.encode()).digest()[:16]


def number(text: str) -> int:
    """The first 8 bytes of a text's SHA-256 as a number: they sort as the hashes do."""
    return int.from_bytes(short_digest(text)[:8])


def examples_of(rows: Dataset) -> Iterator[Example]:
    """The rows one by one, to look at."""
    for batch in rows.select_columns(list(FIELDS)).iter(BATCH):
        batch["answers"] = map(tuple, batch["answers"])
        yield from map(Example, *(batch[name] for name in FIELDS))


def select(rows: Dataset, places: Any) -> Dataset:
    """The rows at these places, in the places' order, at 4 bytes a row; one may come several times.

    `places` is anything that indexes a NumPy array. `Dataset.select` makes a list of Python's numbers of it, which
    takes 40 bytes a row meanwhile.
    """
    positions = np.arange(len(rows), dtype=np.uint32) if rows._indices is None else _positions(rows)
    chosen = np.ascontiguousarray(positions[places])
    fingerprint = hashlib.sha256(rows._fingerprint.encode())
    fingerprint.update(chosen.data)
    indices = InMemoryTable(pyarrow.table({"indices": chosen}))
    return Dataset(rows.data, indices_table=indices, fingerprint=fingerprint.hexdigest())


def numbers(rows: Dataset, column: str) -> np.ndarray:
    """A column of numbers."""
    return _chosen(rows, rows.data.column(column).to_numpy())


def with_context(rows: Dataset) -> np.ndarray:
    """Whether each row has a context, read without the texts."""
    return _chosen(rows, pyarrow.compute.binary_length(rows.data.column("input")).to_numpy() > 0)


def categories(rows: Dataset) -> tuple[np.ndarray, list[str]]:
    """Each row's category, as its place among the names, and the names in alphabetical order."""
    column = rows.data.column("category").dictionary_encode().combine_chunks()
    names, place = np.unique(column.dictionary.to_pylist(), return_inverse=True)
    codes = place.astype(np.min_scalar_type(len(names)))[column.indices.to_numpy()]
    return _chosen(rows, codes), names.tolist()


def category_counts(rows: Dataset) -> Counter[str]:
    """Rows by category; a row that comes several times counts as often."""
    codes, names = categories(rows)
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return Counter({name: count for name, count in zip(names, counts, strict=True) if count})


def of_categories(rows: Dataset, wanted: Collection[str]) -> Dataset:
    """The rows of some categories."""
    codes, names = categories(rows)
    return select(rows, np.isin(codes, [code for code, name in enumerate(names) if name in wanted]))


def _chosen(rows: Dataset, values: np.ndarray) -> np.ndarray:
    return values if rows._indices is None else values[_positions(rows)]


def _positions(rows: Dataset) -> np.ndarray:
    return rows._indices.column(0).to_numpy()


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


def temporary_dataset(
    schema: pyarrow.Schema,
    batches: Iterable[pyarrow.RecordBatch],
    fingerprint: Callable[[], str | None] = lambda: None,
) -> Dataset:
    """A memory-mapped data set in a nameless file, which is gone when it is not used any more.

    `fingerprint` is asked when all is written; None: one of chance. Raises UserError when the disk is full.
    """
    try:
        with tempfile.TemporaryFile() as file:
            write_batches(file, schema, batches)
            return mapped_dataset(Path(f"/dev/fd/{file.fileno()}"), fingerprint())
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: rows cannot be written there: {error.strerror or error}; set TMPDIR to a "
            "directory with room for the data"
        ) from None


def write_batches(file: BinaryIO, schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch]) -> None:
    """Write what `mapped_dataset` reads."""
    with pyarrow.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            del batch  # with two at a time, the allocator gives nothing back: memory grew by 340 bytes a row
    file.flush()


def mapped_dataset(path: Path, fingerprint: str | None) -> Dataset:
    """The data set in a file; memory holds what is looked at. None: a fingerprint of chance."""
    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=fingerprint)
