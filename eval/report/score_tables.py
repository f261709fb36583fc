"""The report's tables: scores beside what they have to beat, behaviour beside the references' own. No torch here."""

from collections.abc import Mapping, Sequence

from eval.metrics.metric import Metric
from eval.render.numbers import interval, number, p_value
from eval.report.names import change_name, floor_name, metric_title, scope_name, system_name
from eval.report.view import measured
from eval.scoring.results import Limit, Results, Scope, best
from eval.statistics.estimates import Interval
from sft.page.blocks import NOTHING, Cell, Table, text_of
from sft.system.texts import text

Cells = list[str | Cell]


def score_table(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> Table:
    """Metric by metric and scope by scope: every system, the difference and its p, floor, oracle, normalised score.

    Columns that nothing in the table has a value for are left out.
    """
    places = _places(results, scopes, metrics)
    columns = _systems(results, places)
    if results.deltas.groups:
        columns[text("body.p_holm")] = [
            p_value(found.p_holm, found.p_is_bound) for found in (results.deltas.of(*place) for place in places)
        ]
    for name in results.systems:
        several = len(results.systems) > 1
        title = text("body.best_floor_of", system=system_name(name)) if several else text("body.best_floor")
        columns[title] = [_limit_cell(results.best_floor(name, *place)) for place in places]
    columns[text("body.oracle")] = [Cell(number(best(results.ceilings, *place).mean)) for place in places]
    for name, positions in results.normalised.items():
        columns[text("body.normalised", system=system_name(name))] = [
            score_cell(positions.of(*place)) for place in places
        ]
    return _table(results, places, columns)


def behaviour_table(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> Table:
    """Every system beside the references' own value, which says what is usual, and the difference."""
    places = _places(results, scopes, metrics)
    own: Cells = [number(results.reference.of(*place).mean) for place in places]
    return _table(results, places, {text("body.references"): own} | _systems(results, places))


def score_cell(found: Interval, signed: bool = False) -> Cell:
    """The mean and its interval."""
    return Cell(number(found.mean, signed), interval(found, signed))


Place = tuple[Scope, Metric]


def _places(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[Place]:
    """Every metric that was measured in every scope; parts of a metric in groups only, where they have the rows."""
    present = measured(results.systems, scopes, metrics)
    return [(scope, m) for m in present for scope in scopes if scope.is_group or not m.part_of]


def _systems(results: Results, places: Sequence[Place]) -> dict[str, Cells]:
    """A column for every system, and one for the difference."""
    columns: dict[str, Cells] = {
        system_name(name): [score_cell(scores.of(*place)) for place in places]
        for name, scores in results.systems.items()
    }
    if results.deltas.groups:
        columns[change_name()] = [score_cell(results.deltas.of(*place), signed=True) for place in places]
    return columns


def _limit_cell(limit: Limit) -> Cell:
    return Cell(number(limit.mean), floor_name(limit.name) if limit.mean is not None else "")


def _rows_measured(results: Results, scope: Scope, metric: Metric) -> str:
    """`40`, or `37/40` where the metric's input was missing in some rows (of the system that lacks most)."""
    rows = results.rows.of(scope)
    least = min(scores.of(scope, metric).n for scores in results.systems.values())
    return str(rows) if least == rows else f"{least}/{rows}"


def _table(results: Results, places: Sequence[Place], columns: Mapping[str, Cells]) -> Table:
    known = {title: cells for title, cells in columns.items() if any(text_of(cell) != NOTHING for cell in cells)}
    rows = [
        [metric_title(metric), scope_name(scope), _rows_measured(results, scope, metric), *cells]
        for (scope, metric), *cells in zip(places, *known.values(), strict=True)
    ]
    strong = frozenset(at for at, (scope, _) in enumerate(places) if scope.is_group)
    return Table(
        [text("benchmark.metric"), text("rows.category"), text("body.n"), *known],
        rows,
        left=2,
        sectioned=True,
        strong=strong,
    )
