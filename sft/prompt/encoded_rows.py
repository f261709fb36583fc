"""Encoded rows on disk, memory-mapped, and kept for the next run that wants the same ones."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow
import pyarrow.compute
from datasets import Dataset

from sft.data.rows import mapped_dataset, write_batches
from sft.system.errors import UserError, warn
from sft.system.files import file_sha256, whole_file, write_whole

IGNORE_INDEX = -100
"""Label of a token that takes no part in the loss (PyTorch's default `ignore_index`)."""

_TOKENS = pyarrow.list_(pyarrow.int32())
SCHEMA = pyarrow.schema(
    [("input_ids", _TOKENS), ("labels", _TOKENS), ("index", pyarrow.string()), ("category", pyarrow.string())]
)


class Kept(NamedTuple):
    """Encoded rows, and what was noted about them when they were encoded (anything that JSON holds)."""

    rows: Dataset
    notes: Any


def kept(key: str, batches: Iterator[pyarrow.RecordBatch], notes: Callable[[], Any]) -> Kept:
    """The rows with this key: those that are there, or else `batches`, which have the columns of SCHEMA.

    `notes` is asked when all of them are written. They are kept in the directory of the `datasets` library's cache,
    which HF_HOME and HF_DATASETS_CACHE move, and which can be deleted at any time. Rows that are not as they were
    written are encoded again. Raises UserError when there is no room.
    """
    directory = Path(datasets.config.HF_DATASETS_CACHE) / "encoded-rows"
    rows, beside = directory / f"{key}.arrow", directory / f"{key}.json"
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        if record["sha256"] == file_sha256(rows):
            return Kept(mapped_dataset(rows, key), record["notes"])
        warn([f"{rows} is damaged, and is made again"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there, or not whole
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with whole_file(rows) as file:
            write_batches(file, SCHEMA, batches)
        record = {"sha256": file_sha256(rows), "notes": notes()}
        write_whole(beside, json.dumps(record))  # rows without it do not count
    except (OSError, UserError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):  # it is about the rows
            raise
        raise UserError(
            f"{directory}: encoded rows cannot be kept there: {reason.strerror or reason}; set HF_DATASETS_CACHE to a "
            "directory with room for them"
        ) from None
    return Kept(mapped_dataset(rows, key), record["notes"])


def digest(*parts: str | bytes) -> str:
    """A hash of all the parts: a key."""
    total = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        total.update(len(part).to_bytes(8) + part)
    return total.hexdigest()


def row_lengths(rows: Dataset) -> "array[int]":
    """Tokens of each row, at 4 bytes a row, read without the tokens."""
    return array("i", pyarrow.compute.list_value_length(rows.data.column("input_ids")).to_numpy().tobytes())


def largest_id(rows: Dataset) -> int:
    """The largest token id in any row."""
    return max(int(chunk.flatten().to_numpy().max()) for chunk in rows.data.column("input_ids").chunks if len(chunk))


def token_counts(rows: Dataset) -> tuple[int, int]:
    """All tokens of encoded rows, and the supervised ones (a row's first token never is)."""
    supervised = 0
    for chunk in rows.data.column("labels").chunks:
        is_supervised = chunk.flatten().to_numpy() != IGNORE_INDEX
        is_supervised[chunk.offsets.to_numpy()[:-1] - chunk.offsets[0].as_py()] = False
        supervised += int(is_supervised.sum())
    return sum(row_lengths(rows)), supervised
