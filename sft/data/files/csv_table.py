"""Tables as text: what stands between cells is found, records are counted as a spreadsheet's rows."""

import csv
import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sft.data.files.encodings import Encoding, encoding_of, text_lines
from sft.data.files.raw import BadRow, IsHeader, Shown, Table, find_header, header_place, rows_below
from sft.system.errors import UserError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
FIELD_LIMIT = 100_000_000
SNIFFED = 50
"""Records that say what stands between cells."""
_NOT_DECODED = re.compile("[\udc80-\udcff]")
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[{\[]|[\[{]\s*$)')
_EXCELS_HINT = re.compile(r'"?sep=(.)"?\s*$')


def csv_table(path: Path, is_header: IsHeader) -> Table:
    """The table in a file; its rows are numbered as a spreadsheet shows them, the header's row counted.

    Raises UserError where quotation marks are out of place, which would change or swallow texts without a word.
    """
    csv.field_size_limit(FIELD_LIMIT)
    encoding = encoding_of(path)
    with text_lines(path, encoding, newline="") as lines:
        head = list(islice(lines, 20 * SNIFFED))
    if head and _JSON.match(head[0]):
        raise UserError(f"{path}: not a CSV file but JSON; call it .jsonl, or .json where it is a single value")
    hint = _EXCELS_HINT.match(head[0]) if head else None
    hidden = 1 if hint else 0  # Excel obeys this line and does not show it
    delimiter = hint[1] if hint else max(DELIMITERS, key=lambda candidate: _fit(head, candidate))
    first = [[cell.strip() for cell in cells] for cells in _sniffed(head[hidden:], delimiter)]
    place, where = find_header(first, is_header)
    header = tuple(first[place]) if first else ()

    def rows(wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
        with text_lines(path, encoding, newline="") as lines:
            records = _records(path, islice(lines, hidden, None), delimiter, encoding)
            for number, row in rows_below(header, islice(records, place + 1, None)):
                yield f"row {number}", row

    between = f", {DELIMITERS.get(delimiter, delimiter)} between cells" if delimiter != "," else ""
    return Table(f"CSV in {encoding.name}{between}{where}", header, rows)


def _sniffed(lines: list[str], delimiter: str) -> list[list[str]]:
    return list(islice(csv.reader(lines, delimiter=delimiter), SNIFFED))


def _fit(lines: list[str], delimiter: str) -> float:
    """How well a character divides the first records: cells of the header, and how many records have as many."""
    try:
        records = [cells for cells in _sniffed(lines, delimiter) if any(cells)]
    except csv.Error:
        return 0
    if not records:
        return 0
    cells = len(records[header_place(records)])
    return (cells - 1) * sum(len(record) == cells for record in records) / len(records)


def _marked(cell: str, delimiter: str, cells: list[str]) -> str:
    """A cell; where it seems to have swallowed rows, for a quotation mark that closes too late, it says so."""
    rows = sum(line.count(delimiter) == len(cells) - 1 for line in cell.split("\n")) if "\n" in cell else 0
    return Shown(cell, "several rows") if rows > 1 and len(cells) > 1 else cell


def _records(path: Path, lines: Iterator[str], delimiter: str, encoding: Encoding) -> Iterator[tuple[int, Any]]:
    """Yield each record's number and cells; a record with bytes that are no text is a BadRow."""
    broken: list[str] = []

    def watched() -> Iterator[str]:
        for line in lines:
            if not line.isascii() and _NOT_DECODED.search(line):
                broken.append(line)
            yield line

    number = 0
    try:
        for number, cells in enumerate(csv.reader(watched(), delimiter=delimiter, strict=True), start=1):
            raw = "".join(broken).encode(encoding.codec, "surrogateescape") if broken else b""
            yield number, BadRow(encoding.not_text(raw)) if raw else [_marked(cell, delimiter, cells) for cell in cells]
            broken.clear()
    except csv.Error as error:
        remedy = "a cell with quotation marks in it stands in quotation marks, and has each of them twice"
        raise UserError(f"{path}: not a CSV file in {encoding.name}: row {number + 1}: {error}; {remedy}") from None
