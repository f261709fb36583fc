"""A scored sweep over generation settings, reported: open against context by setting. No torch here."""

from rich.console import Console

from eval.metrics.catalogue import EOS_RATE, FACTS_RECALL, GOLD_CONTAINED, HEADLINE, PARTICLE_SHARE, PUNCTUATION_SHARE
from eval.metrics.metric import Metric
from eval.render.numbers import number, p_value, with_interval
from eval.render.terminal import Row, print_rows
from eval.report.names import group_name, metric_word, system_name
from eval.report.score_tables import score_cell
from eval.report.sweep_figures import dose_figure, labels, sweep_figure
from eval.scoring.results import ON_CONTEXT, ON_OPEN, Scope
from eval.scoring.sweep import SweepResults, SweptSystem
from eval.statistics.estimates import holm
from sft.page.blocks import Block, Cell, Heading, Table, paragraph
from sft.system.texts import series, text

COLUMNS = (
    (ON_OPEN, GOLD_CONTAINED), (ON_CONTEXT, GOLD_CONTAINED), (ON_CONTEXT, FACTS_RECALL), (ON_CONTEXT, PARTICLE_SHARE),
    (ON_CONTEXT, PUNCTUATION_SHARE), (ON_OPEN, EOS_RATE), (ON_CONTEXT, EOS_RATE),
)  # fmt: skip
"""Correctness and behaviour, as far as they stand beside the headline metric."""


def sweep_blocks(sweep: SweepResults) -> list[Block]:
    """Table and figures of a scored sweep, system by system, to stand inside a report."""
    blocks: list[Block] = []
    first, others = labels(sweep)[0], len(sweep.settings) - 1
    lost = text("sweep.lost", metric=metric_word(HEADLINE), first=first, settings=others)
    for place, (name, scores) in enumerate(sweep.systems.items()):
        title = text("sweep.by_setting", system=system_name(name))
        blocks += [Heading(3, title), _headline_table(sweep, scores), paragraph(lost)]
        blocks += [sweep_figure(sweep, name, place), *dose_figure(sweep, name, place), _table(sweep, scores)]
    return blocks


def _headline_table(sweep: SweepResults, system: SweptSystem) -> Table:
    """The headline metric by setting, and what each setting lost against the first."""
    header = [
        text("sweep.setting"),
        _on(HEADLINE, ON_OPEN),
        group_name("context"),
        text("sweep.lost_on_open"),
        text("sweep.lost_on_context"),
        text("sweep.context_minus_open"),
        text("body.p_holm"),
    ]
    rows: list[list[str | Cell]] = []
    adjusted = _adjusted(sweep, system)
    for at, (label, scores) in enumerate(zip(labels(sweep), system.scores, strict=True)):
        cells = [score_cell(scores.of(scope, HEADLINE)) for scope in (ON_OPEN, ON_CONTEXT)]
        lost = system.lost(at)
        rows.append(
            [
                label,
                *cells,
                *(score_cell(one, signed=True) for one in lost),
                p_value(adjusted.get(at), lost[-1].p_is_bound),
            ]
        )
    return Table(header, rows)


def _adjusted(sweep: SweepResults, system: SweptSystem) -> dict[int, float]:
    """p of "context − open" by setting, corrected (Holm) for all that were compared with the first."""
    known = {at: system.lost(at)[-1].p for at in range(1, len(sweep.settings))}
    return holm({at: p for at, p in known.items() if p is not None})


def _table(sweep: SweepResults, system: SweptSystem) -> Table:
    """Correctness and behaviour by setting."""
    header = [text("sweep.setting"), *(_on(metric, scope) for scope, metric in COLUMNS)]
    rows: list[list[str | Cell]] = [
        [label, *(score_cell(scores.of(*place)) for place in COLUMNS)]
        for label, scores in zip(labels(sweep), system.scores, strict=True)
    ]
    return Table(header, rows)


def _on(metric: Metric, scope: Scope) -> str:
    """A metric and the group that it was measured on, as a column's name."""
    return series([metric_word(metric), group_name(scope.group)])


def print_sweep(sweep: SweepResults, console: Console) -> None:
    """The headline metric of every system by setting, open and context, with what was lost between them."""
    for name, system in sweep.systems.items():
        rows, adjusted = [], _adjusted(sweep, system)
        for at, (label, scores) in enumerate(zip(labels(sweep), system.scores, strict=True)):
            both = [number(scores.of(scope, HEADLINE).mean) for scope in (ON_OPEN, ON_CONTEXT)]
            difference = system.lost(at)[-1]
            lost = with_interval(difference, signed=True, digits=2) if at else text("sweep.first")
            ended = number(scores.of(ON_CONTEXT, EOS_RATE).mean, digits=2)
            rows.append(Row(label, [*both, lost, p_value(adjusted.get(at), difference.p_is_bound), ended]))
        keys = ", ".join(sweep.keys) or text("sweep.setting")
        title = text("sweep.table_of", metric=metric_word(HEADLINE), system=system_name(name), keys=keys)
        between = [text("sweep.ctx_minus_open"), text("report.holm_p")]
        print_rows(title, [group_name("open"), group_name("context"), *between, "EOS"], rows, console)
