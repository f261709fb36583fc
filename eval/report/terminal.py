"""The first screen in a terminal, in the reader's language: a table that fits 80 columns, and what it says."""

from rich.console import Console
from rich.text import Text

from eval.metrics.catalogue import HEADLINE
from eval.render.numbers import number, with_interval
from eval.render.terminal import CATEGORY_CELLS, Row, print_rows
from eval.report.first_screen import Subject, about, deviations, groups_asked, how_asked, title
from eval.report.names import metric_word, scope_word, system_word, why_rows_do_not_add_up
from eval.report.sentences import delta_word, endings, found_on, next_step, rests_on, right, sentence
from eval.scoring.results import Results, Scope
from sft.data.records import Group
from sft.page.blocks import Paragraph
from sft.system.texts import space, text
from sft.system.visible import narrow, visible


def print_table(results: Results, subject: Subject, console: Console) -> None:
    """What was compared, the headline metric by category and group beside its floor, and what it says."""
    changes = [text("report.change")] if results.deltas.groups else []
    words = [text("report.in_words")] if results.deltas.groups else []
    header = [text("rows.rows"), *map(system_word, results.systems), *changes, text("report.floor"), *words]
    rows = [
        Row(narrow(scope_word(scope), CATEGORY_CELLS), _cells(results, scope), scope.is_group)
        for scope in results.rows.scopes()
    ]
    _print(console, title(results, subject), about(results, subject))
    print_rows(text("report.table_of", metric=metric_word(HEADLINE)), header, rows, console)
    _print(console, *why_rows_do_not_add_up(results.rows))
    for group in groups_asked(results):
        _print(console, *_lines(results, group), "")
    others = [*how_asked(results), *deviations(results), *endings(results)]
    _print(console, *(line.text for line in others if isinstance(line, Paragraph)))


def _lines(results: Results, group: Group) -> list[str]:
    found = found_on(results, group)
    step = next_step(found)
    steps = [f"{text('report.next')}{space()}{step}"] if step else []
    return [*filter(None, (sentence(found), right(found))), *steps, rests_on(found)]


def _cells(results: Results, scope: Scope) -> list[str]:
    cells = [str(results.rows.of(scope)), *(number(s.of(scope, HEADLINE).mean) for s in results.systems.values())]
    floor = number(results.best_floor(next(reversed(results.systems)), scope, HEADLINE).mean, digits=2)
    if not results.deltas.groups:
        return [*cells, floor]
    delta = results.deltas.of(scope, HEADLINE)
    return [*cells, with_interval(delta, signed=True, digits=2), floor, delta_word(delta)]


def _print(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(Text(visible(line)))
