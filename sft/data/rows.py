"""Rows on disk: an Arrow file, memory-mapped, and selections of it at 4 bytes a row. No torch here."""

import hashlib
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset
from datasets.table import InMemoryTable, MemoryMappedTable

from sft.data.records import FIELDS, Example, Group, Kind, category_name, group_of, row_name
from sft.system.errors import UserError

_TEXT = pyarrow.large_string()  # a thousand rows may hold more than 2 GB
_TURNS = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", _TEXT)]))
_TYPES = {
    "index": pyarrow.string(), "category": pyarrow.string(), "group": pyarrow.string(), "place": pyarrow.string(),
    "history": _TURNS, "answers": pyarrow.list_(_TEXT),
}  # fmt: skip
_HASHES = [(name, pyarrow.uint64()) for name in ("text_hash", "index_hash", "content_hash")]
SCHEMA = pyarrow.schema([(name, _TYPES.get(name, _TEXT)) for name in FIELDS] + [("file", pyarrow.uint16())] + _HASHES)
"""The columns of rows: the fields of `Example`, the number of the file that a row came from, and three hashes.

`text_hash` is that of what must not be torn apart, and decides on a row's side (see `sft.data.split`); `index_hash` is
that of the index, and decides on the order; `content_hash` is that of all of a row's texts.
"""

BATCH = 1000


def write_rows(rows: Iterable[Mapping[str, Any]], groups: Mapping[str, Group] | None = None) -> Dataset:
    """Write checked rows to a nameless file; they come back with the columns SCHEMA.

    A row has instruction, input, output, category (empty: none), answers and index, where None is none; it may have
    history, a list of [role, content], place and file. Its group is what `group_of` says with `groups`, its index what
    `_named` says. The rows' fingerprint is the SHA-256 of their content. Raises UserError when the disk is full.
    """
    digest = hashlib.sha256()
    left = iter(rows)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        while batch := list(islice(left, BATCH)):
            columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
            for row in batch:
                for name, value in _written(row, groups, digest.update).items():
                    columns[name].append(value)
            yield pyarrow.RecordBatch.from_pydict(columns, SCHEMA)

    return _named(temporary_dataset(SCHEMA, batches(), digest.hexdigest))


def _written(
    row: Mapping[str, Any], groups: Mapping[str, Group] | None, add: Callable[[bytes], None]
) -> dict[str, Any]:
    """A row with the columns SCHEMA; its index and texts are added to a digest."""
    category, history = category_name(row["category"]), row.get("history", ())
    texts = [row["instruction"], row["input"], row["output"], category, row["answers"], *([history] if history else [])]
    content = json.dumps(texts, ensure_ascii=False)
    add(f"[{json.dumps(row['index'], ensure_ascii=False)}, {content[1:]}\n".encode())
    return {
        "index": row["index"],
        "instruction": row["instruction"],
        "input": row["input"],
        "output": row["output"],
        "category": category,
        "group": group_of(category, row["input"], groups),
        "history": [{"role": role, "content": text} for role, text in history],
        "answers": row["answers"],
        "place": row.get("place", ""),
        "file": row.get("file", 0),
        "text_hash": number(_inseparable(row["instruction"], row["input"], history)),
        "index_hash": 0 if row["index"] is None else number(row["index"]),
        "content_hash": number(content),
    }


def _inseparable(instruction: str, context: str, history: Iterable[tuple[str, str]]) -> str:
    """What a row shares with others of its unit in the split: its context or, without one, the first question."""
    question = next((text for role, text in history if role == "user"), instruction)
    kind, text = ("context", context) if context else ("instruction", question)
    return f"{kind}:{' '.join(unicodedata.normalize('NFKC', text).split())}"


def _named(rows: Dataset) -> Dataset:
    """The rows, each with an index that no other has.

    That is the row's own where no other row says the same. Else it is a hash of its content and, from the second row of
    that content on, a number behind it (`3f2a91c04d7e#2`): the same however rows are ordered or divided into files.
    """
    own = rows.data.column("index")
    hashes = numbers(rows, "index_hash")
    ordered = np.sort(hashes[own.is_valid().to_numpy()])
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not own.null_count and not len(repeated):
        return rows
    nameless = ~own.is_valid().to_numpy() | np.isin(hashes, repeated)
    others = np.sort(hashes[~nameless])
    del hashes
    content = numbers(rows, "content_hash") >> np.uint64(16)
    times = _times(content, nameless)
    skipped: Counter[int] = Counter()  # a file that was written from these rows may have such names for its own

    def name(place: int) -> str:
        short = int(content[place])
        while True:
            time = int(times[place]) + skipped[short] if short in skipped else int(times[place])
            found = f"{short:012x}" if time == 1 else f"{short:012x}#{time}"
            if not _holds(others, number(found)):
                return found
            skipped[short] += 1

    def batches() -> Iterator[pyarrow.RecordBatch]:
        start = 0
        for batch in rows.data.to_batches(max_chunksize=BATCH):
            indexes = batch.column("index").to_pylist()
            for place in np.flatnonzero(nameless[start : start + len(batch)]).tolist():
                indexes[place] = name(start + place)
            start += len(batch)
            batch = batch.set_column(0, SCHEMA.field("index"), pyarrow.array(indexes, pyarrow.string()))
            hashes = pyarrow.array(list(map(number, indexes)), pyarrow.uint64())
            yield batch.set_column(SCHEMA.get_field_index("index_hash"), SCHEMA.field("index_hash"), hashes)

    return temporary_dataset(SCHEMA, batches(), lambda: rows._fingerprint)


def _times(content: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often a row's content came among the wanted rows up to its place, itself counted; 0 elsewhere."""
    places = np.flatnonzero(wanted).astype(np.int32)
    order = places[np.argsort(content[places], kind="stable").astype(np.int32)]
    in_order = content[order]
    is_first = np.append(True, in_order[1:] != in_order[:-1])[: len(order)]
    numbered = np.arange(len(order), dtype=np.int32)
    times = np.zeros(len(content), np.int32)
    times[order] = numbered - np.maximum.accumulate(np.where(is_first, numbered, 0)) + 1
    return times


def _holds(ordered: np.ndarray, value: int) -> bool:
    place = int(ordered.searchsorted(np.uint64(value)))
    return place < len(ordered) and int(ordered[place]) == value


def short_digest(text: str) -> bytes:
    """The first 16 bytes of a text's SHA-256: enough to tell texts apart, and to order them as the whole does."""
    return hashlib.sha256(text.encode()).digest()[:16]


def number(text: str) -> int:
    """The first 8 bytes of a text's SHA-256 as a number: they sort as the hashes do."""
    return int.from_bytes(short_digest(text)[:8])


def names_of(rows: Dataset, indexes: Sequence[str]) -> list[str]:
    """What readers find rows by, given their indexes (see `row_name`); an index that no row has stays as it is."""
    found = pyarrow.compute.index_in(pyarrow.array(indexes, pyarrow.string()), value_set=rows.data.column("index"))
    places = ["" if at is None else rows.data.column("place")[at].as_py() for at in found.to_pylist()]
    return list(map(row_name, indexes, places))


def examples_of(rows: Dataset) -> Iterator[Example]:
    """The rows one by one, to look at."""
    for batch in rows.select_columns(list(FIELDS)).iter(BATCH):
        batch["history"] = [tuple((turn["role"], turn["content"]) for turn in turns) for turns in batch["history"]]
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


def names(rows: Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """Each row's text in a column of few different ones, as its place among these, and these in alphabetical order."""
    codes = rows.data.column(column).dictionary_encode().combine_chunks()
    texts, place = np.unique(codes.dictionary.to_pylist(), return_inverse=True)
    places = place.astype(np.min_scalar_type(len(texts)))[codes.indices.to_numpy()]
    return _chosen(rows, places), texts.tolist()


def kinds(rows: Dataset) -> tuple[np.ndarray, list[Kind]]:
    """Each row's kind, as its place among the kinds, and the kinds by the names of their categories, then groups."""
    (category, categories), (group, groups) = names(rows, "category"), names(rows, "group")
    pairs = category.astype(np.int32) * len(groups) + group
    present = np.flatnonzero(np.bincount(pairs))
    found = [Kind(categories[pair // len(groups)], cast(Group, groups[pair % len(groups)])) for pair in present]
    return np.searchsorted(present, pairs).astype(np.min_scalar_type(len(found))), found


def kind_counts(rows: Dataset) -> Counter[Kind]:
    """Rows by kind; a row that comes several times counts as often."""
    codes, found = kinds(rows)
    return Counter(dict(zip(found, np.bincount(codes, minlength=len(found)).tolist(), strict=True)))


def category_counts(rows: Dataset) -> Counter[str]:
    """Rows by category; a row that comes several times counts as often."""
    counts: Counter[str] = Counter()
    for kind, count in kind_counts(rows).items():
        counts[kind.category] += count
    return counts


def of_group(rows: Dataset, group: Group) -> Dataset:
    """The rows of a group."""
    codes, groups = names(rows, "group")
    return select(rows, codes == groups.index(group) if group in groups else [])


def _chosen(rows: Dataset, values: np.ndarray) -> np.ndarray:
    return values if rows._indices is None else values[_positions(rows)]


def _positions(rows: Dataset) -> np.ndarray:
    return rows._indices.column(0).to_numpy()


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
