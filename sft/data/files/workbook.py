"""Sheets of an Excel workbook, row by row, as Excel shows them."""

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import openpyxl
from openpyxl.utils import get_column_letter, range_boundaries

from sft.data.files.encodings import OLE, opened
from sft.data.files.excel_cells import cell_text
from sft.data.files.raw import ACROSS, TITLE_ROWS, BadRow, IsHeader, Shown, Table, find_header, rows_below
from sft.system.errors import UserError, first_line, warn
from sft.system.processes import RANK

HEAD = TITLE_ROWS + 1
HIDDEN = "a row that Excel hides"
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"')
_HIDDEN = re.compile(rb'<(?:\w+:)?(?:row|col) [^>]*\bhidden="(?:1|true)"[^>]*>')
_NUMBERS = re.compile(rb'\b(r|min|max)="(\d+)"')
_FORMULA = re.compile(rb"<(?:\w+:)?f[ >/]")


class _Layout(NamedTuple):
    """What openpyxl does not tell of a sheet that it reads row by row, numbers from 1."""

    merged: list[tuple[int, int, int, int]]
    """Left, top, right and bottom of each range."""
    hidden_rows: set[int]
    hidden_columns: set[int]
    formulas: bool


def workbook_tables(path: Path, is_header: IsHeader) -> list[Table]:
    """The visible sheets that hold anything. Raises UserError for what is no workbook that can be read."""
    with opened(path) as packed:
        file = io.BytesIO(packed.read())
    if file.getvalue().startswith(OLE):
        raise UserError(f"{path}: {_of_ole(file.getvalue())}")
    with _one_line(path):
        archive, values = zipfile.ZipFile(file), _workbook(file, calculated=True)
        if not values.sheetnames:  # openpyxl finds none in files of ISO's strict form
            raise UserError(f"{path}: no sheet that can be read; save it in Excel as .xlsx, not as Strict Open XML")
        formulas = None
        tables = []
        hidden = [f'sheet "{sheet.title}"' for sheet in values.worksheets if sheet.sheet_state != "visible"]
        _say_hidden(path, hidden)
        for sheet in values.worksheets:
            if sheet.sheet_state != "visible":
                continue
            layout = _layout(archive.read(sheet._worksheet_path))  # which has no public name in this mode
            pair = [sheet]
            if layout.formulas:
                formulas = formulas or _workbook(file, calculated=False)
                pair.append(formulas[sheet.title])
            tables += _table(path, pair, layout, is_header)
        if hidden and not tables:
            raise UserError(
                f"{path}: no usable row: only {', '.join(hidden)} may hold any, which Excel hides; unhide it"
            )
        return tables


def _of_ole(content: bytes) -> str:
    """Which kind of Excel file lies in a container, and what to do, from the names in its directory."""
    if "EncryptedPackage".encode("utf-16-le") in content:
        return (
            "an Excel workbook with a password; take it off in Excel (File, Info, Protect Workbook, Encrypt with "
            "Password, and clear the field), and save it"
        )
    return "an Excel file of the old kind (.xls); open it in Excel and save it as .xlsx"


def _say_hidden(path: Path, parts: list[str]) -> None:
    if parts and RANK == 0:
        warn([f"{path}: {', '.join(parts)} left out, which Excel hides; unhide what is to be read"])


def _layout(content: bytes) -> _Layout:
    rows, columns = set[int](), set[int]()
    for tag in _HIDDEN.findall(content):
        numbers = {name: int(number) for name, number in _NUMBERS.findall(tag)}
        if b"r" in numbers:
            rows.add(numbers[b"r"])
        elif b"min" in numbers:
            columns |= {*range(numbers[b"min"], numbers[b"max"] + 1)}
    merged = [range_boundaries(name.decode()) for name in _MERGED.findall(content)]
    return _Layout(merged, rows, columns, _FORMULA.search(content) is not None)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zip, XML and openpyxl itself raise many types for a damaged file
        remedy = "open it in Excel and save it again as .xlsx"
        raise UserError(f"{path}: not an Excel workbook that can be read: {first_line(error)}; {remedy}") from None


def _workbook(file: BinaryIO, calculated: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validation, which are not read
        book = openpyxl.load_workbook(file, read_only=True, data_only=calculated)
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # some programs write too few
    return book


def _table(path: Path, pair: list[Any], layout: _Layout, is_header: IsHeader) -> list[Table]:
    """The table of a sheet; none where it is empty. `pair` is the sheet with values and, if it has any, formulas."""
    title = pair[0].title
    filled = [[str(cell).strip() for cell in cells] for cells in islice(_filled(pair, layout), HEAD)]
    filled = list(map(list, zip(*zip_longest(*filled, fillvalue=""), strict=True)))  # of one width
    named = (number for number, cells in enumerate(zip(*filled, strict=True), start=1) if any(cells))
    hidden = [get_column_letter(number) for number in named if number in layout.hidden_columns]
    _say_hidden(path, [f'column {letter} of sheet "{title}"' for letter in hidden])

    def shown(cells: list[Any]) -> list[Any]:
        return [cell for number, cell in enumerate(cells, start=1) if number not in layout.hidden_columns]

    head = [shown(cells) for cells in filled]
    if not any(map(any, head)):
        return []
    place, where = find_header(head, is_header)
    header = head[place]
    while not header[-1]:  # columns that are only coloured
        header.pop()

    def rows(wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
        with _one_line(path):
            records = ((n, shown(cells)) for n, cells in enumerate(_filled(pair, layout), start=1))
            for number, row in rows_below(tuple(header), islice(records, place + 1, None), fit=True):
                where = f'row {number} of sheet "{title}"'
                yield where, BadRow(HIDDEN) if number in layout.hidden_rows else row

    table = Table(f'sheet "{title}"', tuple(header), rows, title)
    return [table._replace(form=table.form + where)]


def _filled(pair: list[Any], layout: _Layout) -> Iterator[list[Any]]:
    """The rows of a sheet as texts; merged cells all hold what stands in the first of them."""
    below = sorted(layout.merged, key=lambda merged: merged[1], reverse=True)
    reached: list[tuple[int, int, int, str]] = []  # of the ranges with this row: left, right, bottom and text
    for number, rows in enumerate(zip(*(sheet.iter_rows() for sheet in pair), strict=True), start=1):
        cells = [cell_text(*cells) for cells in zip(*rows, strict=True)]
        while below and below[-1][1] <= number:
            left, _, right, bottom = below.pop()
            if text := next(iter(cells[left - 1 : left]), ""):
                reached.append((left, right, bottom, text))
        for left, right, _, text in reached:
            cells += [""] * (right - len(cells))
            cells[left - 1 : right] = [text] + [Shown(text, ACROSS)] * (right - left)
        reached = [merged for merged in reached if merged[2] > number]
        yield cells
