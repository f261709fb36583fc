"""Aligned tables for the terminal. No torch here."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.system.visible import narrow, visible

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
