"""The report's tables: scores beside what they have to beat, behaviour beside the references' own. No torch here."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.render.blocks import Cell, Table
from eval.report.view import (
    BASE,
    NOTHING,
    TUNED,
    Limit,
    Results,
    Scope,
    best_floor,
    ceiling,
    estimate,
    interval,
    measured,
    name_of,
    number,
    p_value,
    rows_in,
)

Cells = list[str | Cell]


def score_table(results: Results, scopes: Sequence[Scope], metrics: Sequence[str]) -> Table:
    """Metric by metric and scope by scope: every system, the difference and its p, floor, oracle, normalised score.

    Columns that nothing in the table has a value for are left out.
    """
    places = _places(results, scopes, metrics)
    columns: dict[str, Cells] = {
        name: [score_cell(estimate(scores, scope, metric)) for metric, scope in places]
        for name, scores in results["systems"].items()
    }
    if results.get("deltas"):
        deltas = [estimate(results["deltas"], scope, metric) for metric, scope in places]
        columns[f"{TUNED} − {BASE}"] = [score_cell(delta, signed=True) for delta in deltas]
        columns["p (Holm)"] = [p_value(delta["p_holm"]) for delta in deltas]
    columns["best floor"] = [_limit_cell(best_floor(results, scope, metric)) for metric, scope in places]
    columns["oracle"] = [Cell(number(ceiling(results, scope, metric).mean)) for metric, scope in places]
    for name, scores in results.get("normalised", {}).items():
        columns[f"{name}, normalised"] = [score_cell(estimate(scores, scope, metric)) for metric, scope in places]
    return _table(results, places, columns)


def behaviour_table(results: Results, scopes: Sequence[Scope], metrics: Sequence[str]) -> Table:
    """Every system beside the references' own value, which says what is usual, and the difference."""
    places = _places(results, scopes, metrics)
    own = [estimate(results.get("reference"), scope, metric)["mean"] for metric, scope in places]
    columns: dict[str, Cells] = {"references": [number(value) for value in own]}
    for name, scores in results["systems"].items():
        columns[name] = [score_cell(estimate(scores, scope, metric)) for metric, scope in places]
    if results.get("deltas"):
        deltas = [estimate(results["deltas"], scope, metric) for metric, scope in places]
        columns[f"{TUNED} − {BASE}"] = [score_cell(delta, signed=True) for delta in deltas]
    return _table(results, places, columns)


def score_cell(found: Mapping[str, Any], signed: bool = False) -> Cell:
    """The mean and its interval."""
    return Cell(number(found["mean"], signed), interval(found, signed))


def _places(results: Results, scopes: Sequence[Scope], metrics: Sequence[str]) -> list[tuple[str, Scope]]:
    """Every metric that was measured in every scope; parts of a metric in groups only, where they have the rows."""
    present = measured(results, scopes, metrics)
    parts = {metric for metric in present if name_of(metric).startswith("…")}
    return [(m, scope) for m in present for scope in scopes if m not in parts or scope.kind == "groups"]


def _limit_cell(limit: Limit) -> Cell:
    return Cell(number(limit.mean), limit.name if limit.mean is not None else "")


def _said(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _rows_measured(results: Results, metric: str, scope: Scope) -> str:
    """`40`, or `37/40` where the metric's input was missing in some rows (of the system that lacks most)."""
    rows = rows_in(results, scope)
    least = min(estimate(scores, scope, metric)["n"] for scores in results["systems"].values())
    return str(rows) if least == rows else f"{least}/{rows}"


def _table(results: Results, places: Sequence[tuple[str, Scope]], columns: Mapping[str, Cells]) -> Table:
    known = {title: cells for title, cells in columns.items() if any(_said(cell) != NOTHING for cell in cells)}
    rows = [
        [name_of(metric), scope.label, _rows_measured(results, metric, scope), *cells]
        for (metric, scope), *cells in zip(places, *known.values(), strict=True)
    ]
    strong = frozenset(at for at, (_, scope) in enumerate(places) if scope.kind == "groups")
    return Table(["metric", "category", "n", *known], rows, left=2, sectioned=True, strong=strong)
