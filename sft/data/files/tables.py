"""From a source to its tables, whatever kind of file or hub data set it is."""

import io
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet

from sft.data.files.csv_table import csv_table
from sft.data.files.encodings import OLE, is_packed, opened
from sft.data.files.json_table import json_table
from sft.data.files.raw import BadRow, IsHeader, Table
from sft.data.files.sources import Source, is_local, suffix
from sft.system.errors import UserError, first_line
from sft.system.hub import hub_is_absent, out_of_reach


def tables_of(source: Source, is_header: IsHeader = lambda cells: False) -> list[Table]:
    """The tables of a file (a workbook has one a sheet) or a hub data set. Raises UserError where there are none.

    `is_header` knows names of columns, by which a header is found below titles.
    """
    if not is_local(source.path):
        return [hub_table(source.path, source.revision)]
    path = Path(source.path)
    kind = suffix(path)
    if kind == ".xlsx":
        from sft.data.files.workbook import workbook_tables  # openpyxl takes a third of a second

        return workbook_tables(path, is_header)
    if kind == ".parquet":
        return [_parquet_table(path)]
    if kind == ".arrow":
        return [_arrow_table(path)]
    _refuse_archives(path)
    return [csv_table(path, is_header) if kind in (".csv", ".tsv") else json_table(path, is_header)]


def _refuse_archives(path: Path) -> None:
    with opened(path) as file:
        head = file.read(8)
    kinds = {
        b"PK\x03\x04": "an archive, or an Excel workbook (.xlsx)",
        b"PAR1": "a parquet file (.parquet)",
        b"BZh9": "an archive (.bz2)",
        b"\xfd7zXZ": "an archive (.xz)",
        b"7z\xbc\xaf": "an archive (.7z)",
        b"\x28\xb5\x2f\xfd": "an archive (.zst)",
        OLE: "an Excel file (.xls, or .xlsx with a password)",
    }
    if what := next((what for start, what in kinds.items() if head.startswith(start)), None):
        raise UserError(f"{path}: not a {suffix(path)} file but {what}; give it the name of what it is, or unpack it")


def _parquet_table(path: Path) -> Table:
    place: Path | io.BytesIO = path
    if is_packed(path):
        with opened(path) as file:
            place = io.BytesIO(file.read())
    try:
        with pyarrow.parquet.ParquetFile(place) as parquet:
            columns = tuple(parquet.schema_arrow.names)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None
    return Table("parquet", columns, partial(_parquet_rows, path, place))


def _parquet_rows(path: Path, place: Path | io.BytesIO, wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    try:
        with pyarrow.parquet.ParquetFile(place) as file:
            batches = file.iter_batches(columns=None if wanted is None else list(wanted))
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


def _arrow_table(path: Path) -> Table:
    try:
        rows = datasets.Dataset.from_file(str(path))
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{path}: not a file that save_to_disk wrote: {first_line(error)}") from None
    return Table("arrow", tuple(rows.column_names), partial(_hub_rows, rows))


def hub_table(
    path: str,
    revision: str | None,
    subset: str | None = None,
    split: str = "train",
    instead: str = "set data.path to a local file",
) -> Table:
    """The rows of a split of a hub data set; a `subset` of it where it has several.

    Raises UserError where it cannot be loaded, with what the user can do `instead`.
    """
    if hub_is_absent():
        datasets.config.HF_HUB_OFFLINE = True  # no argument makes it ask its cache alone
    try:
        rows = datasets.load_dataset(path, subset, revision=revision, split=split)
    except Exception as error:  # the hub's clients raise many types for "not there" and "not reachable"
        problem, remedy = first_line(error), "check the id and the connection"
        if isinstance(error, ConnectionError) and problem.startswith("Couldn't reach"):
            problem, remedy = out_of_reach()
        raise UserError(f"data set {path}: cannot be loaded from the hub ({problem}); {remedy}, or {instead}") from None
    return Table("hub data set", tuple(rows.column_names), partial(_hub_rows, rows))


def _hub_rows(rows: Any, wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    chosen = rows if wanted is None else rows.select_columns(list(wanted))
    for number, row in enumerate(chosen, start=1):
        yield f"row {number}", row
