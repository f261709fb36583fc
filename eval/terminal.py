"""The table for the terminal, which fits 80 columns, and lines that say what it means. No torch here."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.view import (
    HEADLINE,
    Results,
    Scope,
    all_scopes,
    best_floor,
    ceiling,
    estimate,
    interval,
    number,
    rows_in,
    verdict,
)
from sft.system.visible import visible

NAME_CELLS = 12


class Row(NamedTuple):
    """A line of a terminal table."""

    label: str
    cells: Sequence[str]
    strong: bool = False


def print_table(results: Results, console: Console) -> None:
    """Character F1 by category and group beside floor and oracle, and how often answers ended."""
    deltas = results.get("deltas")
    header = ["n", *results["systems"], *(["difference"] if deltas else []), "floor", "oracle", "EOS"]
    rows = [Row(scope.label, _row(results, scope), scope.kind == "groups") for scope in all_scopes(results)]
    print_rows("character F1 by task category", header, rows, console)
    notes = (
        "floor: the best of what needs no understanding; oracle: the best sentence of the context; EOS: ended by itself"
    )
    console.print(Text(notes), style="dim")
    for group in ("open", "context"):
        console.print(Text(visible(verdict(results, group).text)))


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


def _row(results: Results, scope: Scope) -> list[str]:
    systems = list(results["systems"].values())
    cells = [str(rows_in(results, scope)), *(number(estimate(s, scope, HEADLINE)["mean"]) for s in systems)]
    if results.get("deltas"):
        delta = estimate(results["deltas"], scope, HEADLINE)
        cells.append(f"{number(delta['mean'], signed=True)} {interval(delta, signed=True, digits=2)}".rstrip())
    limits = (best_floor(results, scope, HEADLINE), ceiling(results, scope, HEADLINE))
    ended = number(estimate(systems[-1], scope, "eos_rate")["mean"], digits=2)
    return [*cells, *(number(limit.mean, digits=2) for limit in limits), ended]
