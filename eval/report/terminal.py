"""The table for the terminal, which fits 80 columns, and lines that say what it means. No torch here."""

from rich.console import Console
from rich.text import Text

from eval.render.terminal import Row, print_rows
from eval.report.view import (
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


def _row(results: Results, scope: Scope) -> list[str]:
    systems = list(results["systems"].values())
    cells = [str(rows_in(results, scope)), *(number(estimate(s, scope, HEADLINE)["mean"]) for s in systems)]
    if results.get("deltas"):
        delta = estimate(results["deltas"], scope, HEADLINE)
        cells.append(f"{number(delta['mean'], signed=True)} {interval(delta, signed=True, digits=2)}".rstrip())
    limits = (best_floor(results, scope, HEADLINE), ceiling(results, scope, HEADLINE))
    ended = number(estimate(systems[-1], scope, "eos_rate")["mean"], digits=2)
    return [*cells, *(number(limit.mean, digits=2) for limit in limits), ended]
