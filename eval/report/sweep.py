"""A scored sweep over generation settings, reported: open against context by setting. No torch here."""

from rich.console import Console

from eval.metrics.catalogue import EOS_RATE, FACTS_RECALL, GOLD_CONTAINED, HEADLINE, PARTICLE_SHARE, PUNCTUATION_SHARE
from eval.render.numbers import number, p_value, with_interval
from eval.render.terminal import Row, print_rows
from eval.report.score_tables import score_cell
from eval.report.sweep_figures import dose_figure, labels, sweep_figure
from eval.report.view import WORDS
from eval.scoring.results import ON_CONTEXT, ON_OPEN
from eval.scoring.sweep import SweepResults, SweptSystem
from eval.statistics.estimates import holm
from sft.page.blocks import Block, Cell, Heading, Table, paragraph

COLUMNS = (
    (ON_OPEN, GOLD_CONTAINED), (ON_CONTEXT, GOLD_CONTAINED), (ON_CONTEXT, FACTS_RECALL), (ON_CONTEXT, PARTICLE_SHARE),
    (ON_CONTEXT, PUNCTUATION_SHARE), (ON_OPEN, EOS_RATE), (ON_CONTEXT, EOS_RATE),
)  # fmt: skip
"""Correctness and behaviour, as far as they stand beside the headline metric."""


def sweep_blocks(sweep: SweepResults) -> list[Block]:
    """Table and figures of a scored sweep, system by system, to stand inside a report."""
    blocks: list[Block] = []
    lost = WORDS["lost"].format(metric=HEADLINE.name, first=labels(sweep)[0], settings=len(sweep.settings) - 1)
    for place, (name, scores) in enumerate(sweep.systems.items()):
        blocks += [Heading(3, f"By setting: {name}"), _headline_table(sweep, scores), paragraph(lost)]
        blocks += [sweep_figure(sweep, name, place), *dose_figure(sweep, name, place), _table(sweep, scores)]
    return blocks


def _headline_table(sweep: SweepResults, system: SweptSystem) -> Table:
    """The headline metric by setting, and what each setting lost against the first."""
    header = [
        "setting",
        f"{HEADLINE.name}, open",
        "context",
        "lost on open",
        "lost on context",
        "context − open",
        "p (Holm)",
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
    header = ["setting", *(f"{metric.name}, {scope.name}" for scope, metric in COLUMNS)]
    rows: list[list[str | Cell]] = [
        [label, *(score_cell(scores.of(*place)) for place in COLUMNS)]
        for label, scores in zip(labels(sweep), system.scores, strict=True)
    ]
    return Table(header, rows)


def print_sweep(sweep: SweepResults, console: Console) -> None:
    """The headline metric of every system by setting, open and context, with what was lost between them."""
    for name, system in sweep.systems.items():
        rows, adjusted = [], _adjusted(sweep, system)
        for at, (label, scores) in enumerate(zip(labels(sweep), system.scores, strict=True)):
            both = [number(scores.of(scope, HEADLINE).mean) for scope in (ON_OPEN, ON_CONTEXT)]
            difference = system.lost(at)[-1]
            lost = with_interval(difference, signed=True, digits=2) if at else "first"
            ended = number(scores.of(ON_CONTEXT, EOS_RATE).mean, digits=2)
            rows.append(Row(label, [*both, lost, p_value(adjusted.get(at), difference.p_is_bound), ended]))
        title = f"{HEADLINE.name} of {name} by {', '.join(sweep.keys) or 'setting'}"
        print_rows(title, ["open", "context", "ctx − open", "Holm p", "EOS"], rows, console)
