"""The first screen of a report, in the reader's language: what was compared, what it says, what to do, and answers."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eval.metrics.catalogue import CORRECT, HEADLINE
from eval.predictions import BASE, TUNED, Prediction
from eval.render.numbers import interval, number, p_is
from eval.report.names import group_word, metric_word, scope_word, system_word, why_rows_do_not_add_up
from eval.report.samples import change_of, sample, scores_by_row
from eval.report.sentences import delta_word, endings, found_on, next_step, rests_on, right, right_cell, sentence
from eval.report.view import deciding_p
from eval.scoring.results import ON_GROUP, Difference, Results, Scope
from sft.data.records import Group
from sft.page.blocks import NOTHING, Beside, Block, Cell, Heading, Link, Sample, Small, Strong, Table, paragraph
from sft.system.texts import Count, series, space, stop, text, told

ASKED: tuple[Group, ...] = ("open", "context")
"""The groups that every report answers for; others where a run has no other rows."""


ROWS_PAGE = "rows.html"


class Subject(NamedTuple):
    """What a report is about, in words that its reader knows; empty: not known."""

    run: str
    base: str = ""
    data: str = ""
    date: str = ""
    """The day on which the training began."""


def first_screen(results: Results, predictions: Sequence[Prediction], subject: Subject) -> list[Block]:
    """Title, subject, a column for open and one for context questions, a table by category, three answers."""
    return [
        Heading(1, title(results, subject)),
        paragraph(about(results, subject), " · ", all_rows()),
        *how_asked(results),
        *deviations(results),
        Beside(tuple(_column(results, group) for group in groups_asked(results))),
        *endings(results),
        Heading(3, text("report.table", metric=metric_word(HEADLINE))),
        category_table(results),
        *small(why_rows_do_not_add_up(results.rows)),
        paragraph(Small(_note(results))),
        Heading(3, text("report.three")),
        *three_answers(results, predictions),
    ]


def small(lines: Iterable[str]) -> list[Block]:
    """Lines in small print."""
    return [paragraph(Small(line)) for line in lines]


def all_rows() -> Link:
    """The way to the page of all rows, which stands beside every report."""
    return Link(text("samples.link"), ROWS_PAGE)


def title(results: Results, subject: Subject) -> str:
    """The run's name, and what is shown of it."""
    compared = bool(results.deltas.groups)
    return text("report.title", run=subject.run) if compared else text("report.title_answers", run=subject.run)


def about(results: Results, subject: Subject) -> str:
    """On one line what is known: base model, data, date, rows."""
    groups = [
        text("report.rows_of_group", rows=Count(rows), group=group_word(group))
        for group in ON_GROUP
        if (rows := results.rows.groups.get(group, 0))
    ]
    known = [
        text("report.base_model", base=subject.base) if subject.base else "",
        text("report.data", data=subject.data) if subject.data else "",
        text("report.begun", date=subject.date) if subject.date else "",
        text("report.rows", rows=Count(results.rows.total), groups=series(groups)),
    ]
    return " · ".join(filter(None, known))


def asked_with(results: Results) -> list[str]:
    """What was in the prompts beside the rows, in words: examples, and that a short answer is wanted."""
    found = results.about
    shots = [text("benchmark.shots", shots=Count(found.shots), seed=found.seed)] if found and found.shots else []
    return [*shots, *([text("benchmark.brief")] if found and found.brief else [])]


def how_asked(results: Results) -> list[Block]:
    """A line where rows were not asked as they are."""
    found = asked_with(results)
    return [paragraph(Strong(text("benchmark.asked")), f": {series(found, '; ')}")] if found else []


def deviations(results: Results) -> list[Block]:
    """A line where these are not answers of the model as it was trained."""
    found = series(map(told, results.about.deviations), "; ") if results.about else ""
    return [paragraph(Strong(text("report.deviations")), f": {found}{stop()}")] if found else []


def groups_asked(results: Results) -> list[Group]:
    """The groups that the first screen has sentences for."""
    return [group for group in ON_GROUP if group in (ASKED if set(ASKED) & results.rows.groups.keys() else ("other",))]


def _column(results: Results, group: Group) -> tuple[Block, ...]:
    found = found_on(results, group)
    step, counts = next_step(found), right(found)
    lines: list[Block] = [paragraph(Strong(sentence(found)))]
    lines += [paragraph(counts)] if counts else []
    lines += [paragraph(Strong(text("report.next")), f"{space()}{step}")] if step else []
    shown = rests_on(found)
    return (*lines, *([paragraph(Small(shown))] if shown else []))


def category_table(results: Results) -> Table:
    """Every category and group: the headline metric before and after, the change, what it says, how many are right."""
    scopes = results.rows.scopes()
    header = [text("rows.category"), text("rows.rows"), *map(system_word, results.systems), text("report.by_rules")]
    rows: list[list[str | Cell]] = []
    for scope in scopes:
        means = [number(scores.of(scope, HEADLINE).mean) for scores in results.systems.values()]
        rows.append([scope_word(scope), f"{results.rows.of(scope):,}", *means, _right(results, scope)])
    if results.deltas.groups:
        # The words stand first, so that a phone shows them.
        header.insert(1, text("report.in_words"))
        header.insert(-1, text("report.change"))
        for scope, row in zip(scopes, rows, strict=True):
            delta = results.deltas.of(scope, HEADLINE)
            row.insert(1, _word_cell(delta))
            row.insert(-1, Cell(number(delta.mean, signed=True), interval(delta, signed=True)))
    strong = frozenset(at for at, scope in enumerate(scopes) if scope.is_group)
    return Table(header, rows, strong=strong)


def _word_cell(delta: Difference) -> Cell:
    p = f"p {p_is(deciding_p(delta), delta.p_is_bound)}" if deciding_p(delta) is not None else ""
    return Cell(delta_word(delta), p)


def _right(results: Results, scope: Scope) -> str:
    pair = bool(results.deltas.groups)
    last = results.systems[TUNED] if pair else next(reversed(results.systems.values()))
    first = results.systems[BASE].of(scope, CORRECT) if pair else None
    return right_cell(first, last.of(scope, CORRECT)) or NOTHING


def _note(results: Results) -> str:
    decided = text("report.decided") if results.deltas.groups else ""
    return text("report.table_note", metric=metric_word(HEADLINE), decided=decided)


def three_answers(results: Results, predictions: Sequence[Prediction]) -> list[Block]:
    """A gain, a loss and a typical row beside each other, each chosen by the headline metric, and the rule."""
    scores = scores_by_row(results)
    paired = bool(results.deltas.groups)
    known = {index: one for index, row in scores.items() if (one := _rank(row, paired)) is not None}
    answers = {(one.example.index, one.system): one for one in predictions}
    samples: list[Sample] = []
    for name, index in three_rows(known, paired).items():
        given = {system: answers[index, system] for system in scores[index]}
        found = sample(given, scores[index], with_category=bool(results.rows.categories))
        labels = [f"{system_word(system)} · {number(score)}" for system, score in scores[index].items()]
        texts = tuple(one._replace(label=label) for one, label in zip(found.answers, labels, strict=True))
        samples.append(found._replace(title=f"{name}: {found.title}", answers=texts))
    metric = metric_word(HEADLINE)
    rule = text("report.chosen", metric=metric) if paired else text("report.chosen_alone", metric=metric)
    return [paragraph(Small(rule)), Beside(tuple((one,) for one in samples))]


def _rank(row: Mapping[str, float | None], paired: bool) -> float | None:
    """What rows are chosen by: their change or, without a pair, the last system's score."""
    return change_of(row) if paired else list(row.values())[-1]


def three_rows(values: Mapping[str, float], paired: bool) -> dict[str, str]:
    """What each is → its index: the highest, the lowest and the median of the values, no row twice.

    With `paired` values are changes, and there is no gain or loss where none is above or below 0.
    """
    order = sorted(values, key=lambda index: (values[index], index))
    high, low = (
        (text("report.gain"), text("report.loss")) if paired else (text("report.highest"), text("report.lowest"))
    )
    found = {}
    if order and (not paired or values[order[-1]] > 0):
        found[high] = order[-1]
    if order and order[0] not in found.values() and (not paired or values[order[0]] < 0):
        found[low] = order[0]
    rest = [index for index in order if index not in found.values()]
    if rest:
        middle = statistics.median_low(values.values())
        found[text("report.typical")] = min(rest, key=lambda index: (abs(values[index] - middle), index))
    return found
