"""Sheets of an Excel workbook, row by row, as Excel shows them."""

import contextlib
import datetime
import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import openpyxl
from openpyxl.utils import range_boundaries

from sft.data.files.encodings import OLE, opened
from sft.data.files.raw import TITLE_ROWS, IsHeader, Shown, Table, cells_by_column, find_header
from sft.system.errors import UserError, first_line, warn
from sft.system.processes import RANK

UNCALCULATED = "a formula without a value"
HEAD = TITLE_ROWS + 1
_MERGED = re.compile(rb'<mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"')


def workbook_tables(path: Path, is_header: IsHeader) -> list[Table]:
    """The visible sheets that hold anything. Raises UserError for what is no workbook that can be read."""
    with opened(path) as packed:
        file = io.BytesIO(packed.read())
    if file.getvalue().startswith(OLE):
        raise UserError(f"{path}: {_of_ole(file.getvalue())}")
    with _one_line(path):
        archive, values = zipfile.ZipFile(file), _workbook(file, calculated=True)
        formulas = None
        tables = []
        hidden = [f'sheet "{sheet.title}"' for sheet in values.worksheets if sheet.sheet_state != "visible"]
        if hidden and RANK == 0:
            warn([f"{path}: {', '.join(hidden)} left out, which Excel hides; unhide what is to be read"])
        for sheet in values.worksheets:
            if sheet.sheet_state != "visible":
                continue
            content = archive.read(sheet._worksheet_path)  # no public name leads to merged cells in this mode
            merged = [range_boundaries(name.decode()) for name in _MERGED.findall(content)]
            pair = [sheet]
            if re.search(rb"<f[ >/]", content):
                formulas = formulas or _workbook(file, calculated=False)
                pair.append(formulas[sheet.title])
            del content
            tables += _table(path, pair, merged, is_header)
        return tables


def _of_ole(content: bytes) -> str:
    """Which kind of Excel file lies in a container, and what to do, from the names in its directory."""
    if "EncryptedPackage".encode("utf-16-le") in content:
        return (
            "an Excel workbook with a password; take it off in Excel (File, Info, Protect Workbook, Encrypt with "
            "Password, and clear the field), and save it"
        )
    return "an Excel file of the old kind (.xls); open it in Excel and save it as .xlsx"


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
        return openpyxl.load_workbook(file, read_only=True, data_only=calculated)


def _table(path: Path, pair: list[Any], merged: list[Any], is_header: IsHeader) -> list[Table]:
    """The table of a sheet; none where it is empty. `pair` is the sheet with values and, if it has any, formulas."""
    title = pair[0].title
    head = [[str(cell).strip() for cell in cells] for cells in islice(_filled(pair, merged), HEAD)]
    if not any(map(any, head)):
        return []
    place, where = find_header(head, is_header)
    header = head[place]
    while not header[-1]:  # columns that are only coloured
        header.pop()

    def rows(wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
        with _one_line(path):
            for number, cells in enumerate(_filled(pair, merged), start=1):
                filled = (cells + [""] * len(header))[: len(header)]
                row = cells_by_column(tuple(header), filled)
                if number > place + 1 and row is not None:
                    yield f'row {number} of sheet "{title}"', row

    table = Table(f'sheet "{title}"', tuple(header), rows, title)
    return [table._replace(form=table.form + where)]


def _filled(pair: list[Any], merged: list[Any]) -> Iterator[list[Any]]:
    """The rows of a sheet as texts; merged cells all hold what stands in the first of them."""
    texts: dict[tuple[int, int], Any] = {}
    starts = {(top, left): (right, bottom) for left, top, right, bottom in merged}
    inside = {
        (row, column): (top, left)
        for (top, left), (right, bottom) in starts.items()
        for row in range(top, bottom + 1)
        for column in range(left, right + 1)
    }
    for number, rows in enumerate(zip(*(sheet.iter_rows() for sheet in pair), strict=True), start=1):
        cells = [_text(*cells) for cells in zip(*rows, strict=True)]
        for column in range(1, len(cells) + 1) if inside else ():
            if start := inside.get((number, column)):
                if start == (number, column):
                    texts[start] = cells[column - 1]
                cells[column - 1] = texts.get(start, "")
        yield cells


def _text(cell: Any, formula: Any = None) -> str:
    """A cell as text, near to what Excel shows."""
    value, form = cell.value, str(cell.number_format)
    if value is None:
        uncalculated = formula is not None and formula.data_type == "f"
        return Shown(str(formula.value), UNCALCULATED) if uncalculated else ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return Shown(str(value).upper(), "a truth value")
    if isinstance(value, datetime.datetime):
        text = value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
        return Shown(text, "a date")
    if isinstance(value, datetime.time | datetime.timedelta):
        return Shown(str(value).removesuffix(":00"), "a time")
    if "%" in form:
        return Shown(f"{value * 100:.15g}%", "a percentage")
    return str(value) if isinstance(value, int) else f"{value:.15g}"
