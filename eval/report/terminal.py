"""The table for the terminal, which fits 80 columns, and lines that say what it means. No torch here."""

from rich.console import Console
from rich.text import Text

from eval.metrics.catalogue import EOS_RATE, HEADLINE
from eval.render.numbers import number, with_interval
from eval.render.terminal import CATEGORY_CELLS, Row, print_rows
from eval.report.view import WORDS, endings, verdict
from eval.scoring.results import ON_CONTEXT, ON_OPEN, Results, Scope, best
from sft.system.visible import narrow, visible


def print_table(results: Results, console: Console) -> None:
    """Character F1 by category and group beside floor and oracle, and how often answers ended."""
    difference = ["difference"] if results.deltas.groups else []
    header = ["n", *results.systems, *difference, "floor", "oracle", "EOS"]
    rows = [
        Row(narrow(scope.label, CATEGORY_CELLS), _cells(results, scope), scope.is_group)
        for scope in results.rows.scopes()
    ]
    print_rows(f"{HEADLINE.name} by task category", header, rows, console)
    console.print(Text(WORDS["columns"]), style="dim")
    for line in (*(verdict(results, scope.group) for scope in (ON_OPEN, ON_CONTEXT)), *endings(results)):
        console.print(Text(visible(line.text)))


def _cells(results: Results, scope: Scope) -> list[str]:
    systems = list(results.systems.values())
    cells = [str(results.rows.of(scope)), *(number(scores.of(scope, HEADLINE).mean) for scores in systems)]
    if results.deltas.groups:
        cells.append(with_interval(results.deltas.of(scope, HEADLINE), signed=True, digits=2))
    last = next(reversed(results.systems))
    limits = [results.best_floor(last, scope, HEADLINE).mean, best(results.ceilings, scope, HEADLINE).mean]
    return [*cells, *(number(end, digits=2) for end in (*limits, systems[-1].of(scope, EOS_RATE).mean))]
