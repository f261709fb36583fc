"""Rows of a hub data set or a local file are checked and kept on disk; nothing is dropped without being counted."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow.parquet

from sft.data.records import CATEGORIES, Group
from sft.data.rows import SeenTexts, write_rows
from sft.system.errors import UserError, first_line
from sft.system.files import FIELD_TWICE, parse_json
from sft.system.hub import hub_is_absent

# dolly-ja's name for a field, and the name it has in the English databricks-dolly-15k.
ALIASES = {"input": "context", "output": "response"}
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
CSV_FIELD_LIMIT = 100_000_000
SHOWN_DROPS = 3
FIELDS = ("index", "instruction", "input", "output", "category", "answers", *ALIASES.values())
"""Everything that is read of a row."""
OPTIONAL = ("input", "category")
"""Of them, texts that a row need not have."""


class Dropped(NamedTuple):
    """A row that cannot be used: where it stands, why, and its category as far as it has one."""

    place: str
    reason: str
    category: str


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """The usable rows of a data set (see `sft.data.rows`), and the unusable ones.

    `dropped` holds the first few unusable rows of each (reason, category), `drop_counts` counts them all.
    """

    rows: datasets.Dataset
    dropped: list[Dropped]
    drop_counts: Counter[tuple[str, str]]

    @property
    def sha256(self) -> str:
        """SHA-256 of the usable rows' content."""
        return self.rows._fingerprint

    def drop_report(self) -> list[str]:
        """One line a reason and category, with the first few places; empty when nothing was dropped."""
        lines = []
        for (reason, category), count in sorted(self.drop_counts.items()):
            places = ", ".join(d.place for d in self.dropped if (d.reason, d.category) == (reason, category))
            more = ", …" if count > SHOWN_DROPS else ""
            lines.append(f"dropped {count} row{'s' * (count > 1)} ({category}): {reason}: {places}{more}")
        return lines


class BadRow(ValueError):
    """A row that cannot be used; the message is the reason that is counted."""


def load_data(path: str, revision: str | None = None, groups: Mapping[str, Group] | None = None) -> LoadedData:
    """Load and check every row of `path`: a local json, jsonl, csv or parquet file, or else a hub data set id.

    `revision` pins a hub data set's commit, tag or branch, `groups` is `data.groups`. Raises UserError when the data
    cannot be read or holds no usable row.
    """
    rows = _local_rows(Path(path)) if _is_local(path) else _hub_rows(path, revision)
    dropped: list[Dropped] = []
    counts: Counter[tuple[str, str]] = Counter()
    data = LoadedData(write_rows(_usable(rows, dropped, counts), groups), dropped, counts)
    if not data.rows:
        reasons = "; ".join(data.drop_report()[:3]) or "it is empty"
        raise UserError(f"{path}: no usable row ({reasons}); rows need instruction and output")
    return data


def _usable(
    rows: Iterable[tuple[str, Any]], dropped: list[Dropped], counts: Counter[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the usable rows; count the others, and add the first few of each kind to `dropped`."""
    seen = SeenTexts()
    for number, (place, row) in enumerate(rows, start=1):
        try:
            fields = checked_row(row, default_index=str(number))
            if not seen.add(fields["index"]):
                raise BadRow("duplicate index")
        except BadRow as error:
            category = row.get("category") if isinstance(row, dict) else None
            kind = str(error), category if category in CATEGORIES else "no known category"
            counts[kind] += 1
            if counts[kind] <= SHOWN_DROPS:
                dropped.append(Dropped(place, *kind))
        else:
            yield fields


def checked_row(row: Any, default_index: str) -> dict[str, Any]:
    """The fields of `Example` that a row in dolly-ja's or the English dolly's schema has. Raises BadRow."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow("not an object with fields")
    values = {}
    for field in ("instruction", "input", "output", "category"):
        alias = ALIASES.get(field, field)
        name = field if field in row else alias
        value = row.get(name)
        if name != alias and alias in row and row[alias] != value:
            raise BadRow(f"{field} and {alias} are both there and differ")
        if value is None and field not in OPTIONAL:
            raise BadRow(f"no {field}" if name not in row else f"{name} is null")
        value = "" if value is None else value
        _check_text(value, name)
        if not value.strip() and field not in OPTIONAL:
            raise BadRow(f"empty {name}")
        values[field] = value if value.strip() else ""
    index = row.get("index", default_index)
    if not isinstance(index, str | int) or isinstance(index, bool):
        raise BadRow("index is neither text nor a whole number")
    _check_text(str(index), "index")
    return values | {"index": str(index), "answers": _answers(row.get("answers"))}


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    if "\0" in value:
        raise BadRow(f"{name} holds a null character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name} is not valid Unicode (a lone surrogate)") from None


def _answers(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(answer, str) and answer.strip() for answer in value):
        raise BadRow("answers is not a list of texts")
    for answer in value:
        _check_text(answer, "answers")
    return value


def _is_local(path: str) -> bool:
    # A hub id is `name` or `owner/name`; everything that exists, or is spelt like a file, is a file.
    return Path(path).exists() or path.endswith(SUFFIXES) or path.startswith((".", "/", "~")) or path.count("/") > 1


def _local_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, row); a line that cannot be parsed is yielded as a BadRow."""
    path = path.expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such data file; set data.path to a hub id or a {', '.join(SUFFIXES)} file")
    if path.suffix not in SUFFIXES or not path.is_file():
        raise UserError(f"{path}: not a data file; data.path takes a hub id or a {', '.join(SUFFIXES)} file")
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    try:
        yield from readers[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            yield f"line {number}", _parse_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _parse_line(line: bytes) -> Any:
    try:
        return parse_json(line.decode("utf-8"))
    except UnicodeDecodeError:
        return BadRow("not UTF-8")
    except json.JSONDecodeError:
        return BadRow("not JSON")
    except RecursionError:
        return BadRow("nested too deeply")
    except ValueError as error:
        return BadRow(FIELD_TWICE if str(error) == FIELD_TWICE else "a number is too long")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = parse_json(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        hint = "; one object a line belongs in a .jsonl file" if "Extra data" in str(error) else ""
        raise UserError(f"{path}: not JSON in UTF-8: {error}{hint}") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds {type(rows).__name__}, not a list of rows")
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict, because a quotation mark out of place would change or swallow texts without a word.
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                cells = "more" if None in row else "fewer" if None in row.values() else None
                yield f"line {reader.line_num}", BadRow(f"{cells} cells than columns") if cells else row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Raise UserError when one of the columns that are read is there twice: which of the two is meant?"""
    for name in FIELDS:
        if names.count(name) > 1:
            raise UserError(f"{path}: {names.count(name)} columns are called {name}; keep one of them")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            batches = file.iter_batches(columns=[name for name in names if name in FIELDS])
            for number, row in enumerate(chain.from_iterable(map(_parquet_batch, batches)), start=1):
                yield f"row {number}", row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None


def _parquet_batch(batch: Any) -> list[Any]:
    """The rows of a batch; a row whose bytes are no text is a BadRow."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [BadRow("not UTF-8")]
        return [row for place in range(len(batch)) for row in _parquet_batch(batch.slice(place, 1))]


def _hub_rows(path: str, revision: str | None) -> Iterator[tuple[str, Any]]:
    if hub_is_absent():
        datasets.config.HF_HUB_OFFLINE = True  # no argument makes it ask its cache alone
    try:
        for number, row in enumerate(datasets.load_dataset(path, revision=revision, split="train"), start=1):
            yield f"row {number}", row
    except Exception as error:  # the hub's clients raise many types for "not there" and "not reachable"
        raise UserError(
            f"data set {path}: cannot be loaded from the hub ({first_line(error)}); check the id and the connection, "
            "or set data.path to a local file"
        ) from None
