"""Aligned tables for the terminal. No torch here."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.system.visible import visible

NAME_CELLS = 12
CATEGORY_CELLS = 24
"""Room for the name of a category, which may be a sentence of the user's."""


class Row(NamedTuple):
    """A line of a terminal table."""

    label: str
    cells: Sequence[str]
    strong: bool = False


def print_rows(title: str, header: Sequence[str], rows: Iterable[Row], console: Console) -> None:
    """An aligned table; strong rows (groups, among categories) stand out. Names that are too wide are cut."""
    table = Table(title=Text(visible(title)), box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("", no_wrap=True)
    for name in header:
        table.add_column(Text(narrow(name)), justify="right", no_wrap=True)
    for row in rows:
        # Text, because brackets in a plain string would be read as markup; visible, because Text lets escapes through.
        shown = [row.label if row.strong else f" {row.label}", *(re.sub(r"\b0(?=\.)", "", cell) for cell in row.cells)]
        cells = [Text(visible(cell)) for cell in shown]
        table.add_row(*cells, style="bold" if row.strong else "", end_section=row.strong)
    console.print(table)


def narrow(name: str, cells: int = NAME_CELLS) -> str:
    """A name on one line in at most so many terminal cells; a Japanese character takes two."""
    line = " ".join(visible(name).split())
    return line if cell_len(line) <= cells else set_cell_size(line, cells - 1).rstrip() + "…"
