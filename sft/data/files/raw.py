"""What a file gives before anybody knows what it means: tables of rows, and rows that cannot be used."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple


class BadRow(ValueError):
    """A row that cannot be used; the message is the reason that is counted."""


class Table(NamedTuple):
    """Rows of a file, a sheet or a hub data set.

    `form` says in words what was found, `columns` are the names in the header (None: each row has names of its own).
    `rows` yields (place, row) when it is called with the columns that are wanted: a mapping with at least those, a
    BadRow, or any other value that JSON has. A place is what the reader's own program shows.
    """

    form: str
    columns: tuple[str, ...] | None
    rows: Callable[[Collection[str] | None], Iterator[tuple[str, Any]]]
    sheet: str | None = None


class Shown(str):
    """The text of a spreadsheet's cell that was no text; `kind` says what it was."""

    kind: str

    def __new__(cls, text: str, kind: str) -> "Shown":
        shown = super().__new__(cls, text)
        shown.kind = kind
        return shown


UNCALCULATED = "a formula without a value"
"""A kind of `Shown`: nothing has calculated it since it was written."""
ACROSS = "the text of a column to the left"
"""A kind of `Shown`: of cells merged across columns, all but the first."""

IsHeader = Callable[[list[str]], bool]
"""Whether the texts of a row are names of columns that are known."""


TITLE_ROWS = 10
"""So many rows may stand above a header."""


def header_place(records: list[list[str]]) -> int:
    """Which of the first rows is the header: titles, with one text in several cells, and empty rows go before."""
    for place, cells in enumerate(records[:TITLE_ROWS]):
        if len({*filter(None, cells)}) > 1:  # a title in merged cells stands in all of them
            return place
        if len(cells) == 1 and cells[0]:  # no title, which a spreadsheet fills up with empty cells: a single column
            break
    return next((place for place, cells in enumerate(records) if any(cells)), 0)


def find_header(records: list[list[str]], is_header: IsHeader) -> tuple[int, str]:
    """Which of the first rows is the header, and what to say of it: "" where that is the first row of several texts.

    Where that is none, a title of several cells say, a row further down is it that can be nothing else.
    """
    usual = header_place(records)
    if records and not is_header(records[usual]):
        for place, cells in enumerate(records[usual + 1 : TITLE_ROWS + 1], start=usual + 1):
            if is_header(cells):
                return place, f", header in row {place + 1}"
    return usual, ""


_RULE = re.compile(r":?-{3,}:?")
"""A cell of the line that Markdown draws below a header."""


def rows_below(
    header: tuple[str, ...], records: Iterable[tuple[int, Any]], fit: bool = False
) -> Iterator[tuple[int, Any]]:
    """The numbered records as mappings, and the BadRows among them; those in which no cell holds anything are none.

    Tables that follow upon each other have their headers inside: each that names the columns, and perhaps more, says of
    the records below it what is what. `fit`: records may be shorter or longer than the header, as those of sheets are.
    """
    names = {*filter(None, header)}
    for number, cells in records:
        if isinstance(cells, BadRow):
            yield number, cells
            continue
        texts = [str(cell).strip() for cell in cells]
        filled = [*filter(None, texts)]
        if not filled or all(map(_RULE.fullmatch, filled)):
            continue
        again = names.intersection(texts)
        if len(again) > 1 and again == names:
            header, names = tuple(texts), {*filled}
            yield number, BadRow("the header again")
        elif len(again) > 1 and sum(text == name != "" for text, name in zip(texts, header, strict=False)) > 1:
            yield number, BadRow("the header again")  # its second row, where cells of two rows are merged
        else:
            yield number, _by_column(header, [*cells, *[""] * len(header)][: len(header)] if fit else cells)


def _by_column(header: tuple[str, ...], cells: list[Any]) -> Any:
    """A record as a mapping, or the BadRow that it is."""
    if len(cells) > len(header) and any(cells[len(header) :]):
        return BadRow("more cells than columns")
    if any(header[len(cells) :]):
        return BadRow("fewer cells than columns")
    return dict(zip(header, cells, strict=False))
