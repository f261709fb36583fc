"""The report of a published benchmark: what the tuning forgot, in its authors' metrics, in the reader's language."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from eval.benchmarks.form import Benchmark
from eval.metrics.catalogue import BY_KEY
from eval.predictions import BASE, TUNED, Prediction
from eval.render.numbers import interval, number, round_up, with_interval
from eval.render.terminal import Row, print_rows
from eval.report.document import folded, provenance
from eval.report.first_screen import Subject, about, all_rows, asked_with, deviations
from eval.report.names import deciding_word, floor_word, system_word
from eval.report.samples import change_of, sample, scores_by_row
from eval.report.score_tables import score_cell
from eval.report.sentences import NEGLIGIBLE, Found, below, endings, found_on, rests_on, saying
from eval.scoring.results import ON_GROUP, Results, Scope
from sft.page.blocks import Block, Cell, Heading, Paragraph, Small, Strong, Table, paragraph
from sft.system.texts import Count, series, text
from sft.system.visible import visible

LOST_SHOWN = 5


def benchmark_document(
    results: Results, predictions: Sequence[Prediction], subject: Subject, benchmark: Benchmark
) -> list[Block]:
    """The whole report; of a benchmark without a score only how the answers are, and some of them."""
    first = [
        Heading(1, benchmark_title(subject, benchmark)),
        paragraph(about(results, subject), " · ", all_rows()),
        *deviations(results),
        paragraph(Strong(text("benchmark.asked")), f": {asked(results, predictions)}"),
        *map(paragraph, _said(results, benchmark)),
        *(endings(results) if benchmark.scored else []),
        metric_table(results, benchmark),
        *([paragraph(Small(text("benchmark.decides")))] if benchmark.scored else []),
        *_answers(results, predictions, benchmark),
        Heading(2, text("benchmark.authors"), folded=True),
        paragraph(f"{benchmark.title}: {text(f'authors.{benchmark.name}')}"),
    ]
    return [*first, *(folded(results, predictions) if benchmark.scored else provenance(results))]


def print_benchmark(
    results: Results, predictions: Sequence[Prediction], subject: Subject, benchmark: Benchmark, console: Console
) -> None:
    """The same in a terminal: what was asked, what it says, a line a metric."""
    lines = [
        benchmark_title(subject, benchmark),
        about(results, subject),
        f"{text('benchmark.asked')}: {asked(results, predictions)}",
    ]
    _print(console, *lines)
    scope = _scope(results)
    header = [*map(system_word, results.systems), *[text("report.change")] * bool(results.deltas.groups)]
    rows = []
    for key in benchmark.metrics:
        cells = [number(scores.of(scope, BY_KEY[key]).mean) for scores in results.systems.values()]
        delta = results.deltas.of(scope, BY_KEY[key])
        rows.append(
            Row(deciding_word(BY_KEY[key]), [*cells, *[with_interval(delta, True)] * (len(header) > len(cells))])
        )
    print_rows(benchmark.title, header, rows, console)
    others = [*deviations(results), *(endings(results) if benchmark.scored else [])]
    _print(console, *_said(results, benchmark))
    _print(console, *(line.text for line in others if isinstance(line, Paragraph)))


def asked(results: Results, predictions: Sequence[Prediction]) -> str:
    """How the rows were asked, in words."""
    found, generation = results.about, next(iter(results.settings.generation.values()))
    parts = [text("benchmark.no_shots")] * (not (found and found.shots)) + asked_with(results)
    if any(answer.finish_reason == "chosen" for answer in predictions):
        parts.append(text("benchmark.likeliest"))
    elif tokens := generation.get("max_new_tokens"):
        parts.append(text("benchmark.tokens", tokens=tokens))
    return series(parts, "; ")


def forgot(found: Found, benchmark: Benchmark) -> str:
    """Whether the tuned model lost against the base: its test alone decides."""
    values = {
        "benchmark": benchmark.title,
        "metric": deciding_word(found.metric),
        "before": number(found.before.mean if found.before else None),
        "after": number(found.after.mean),
        "rows": Count(found.rows),
        "enough": Count(round_up(found.delta.rows_to_show or 0)),
        "most": NEGLIGIBLE,
    }
    return {
        "worse": text("benchmark.forgot", **values),
        "better": text("benchmark.better", **values),
        "too_close": text("benchmark.too_close", **values),
        "unchanged": text("benchmark.unchanged", **values),
        "too_few": text("benchmark.too_few", **values),
        "not_shown": text("benchmark.not_shown", **values),
        "no_spread": text("benchmark.no_spread", **values),
    }.get(saying(found), text("benchmark.alone", **values))


def metric_table(results: Results, benchmark: Benchmark) -> Table:
    """Each metric, whose it is, before and after, the change, and the best score of what understands nothing."""
    scope, pair = _scope(results), bool(results.deltas.groups)
    header = [text("benchmark.metric"), text("benchmark.whose"), *map(system_word, results.systems)]
    header += [text("report.change")] * pair + [text("report.floor")] * benchmark.scored
    last = next(reversed(results.systems))
    rows: list[list[str | Cell]] = []
    for key, whose in benchmark.metrics.items():
        metric = BY_KEY[key]
        cells: list[str | Cell] = [deciding_word(metric), whose or text("benchmark.ours")]
        cells += [score_cell(scores.of(scope, metric)) for scores in results.systems.values()]
        if pair:
            delta = results.deltas.of(scope, metric)
            cells.append(Cell(number(delta.mean, signed=True), interval(delta, signed=True)))
        if benchmark.scored:
            floor = results.best_floor(last, scope, metric)
            cells.append(Cell(number(floor.mean), floor_word(floor.name) if floor.mean is not None else ""))
        rows.append(cells)
    return Table(header, rows, left=2, strong=frozenset([0] * benchmark.scored))


def benchmark_title(subject: Subject, benchmark: Benchmark) -> str:
    """The run's name and the benchmark's."""
    return text("benchmark.title", run=subject.run, benchmark=benchmark.title)


def _scope(results: Results) -> Scope:
    """The one group that all rows of a benchmark are in."""
    return ON_GROUP[next(group for group in ON_GROUP if group in results.rows.groups)]


def _said(results: Results, benchmark: Benchmark) -> list[str]:
    """What a person can repeat, in how many rows, and what it rests on."""
    if not benchmark.scored:
        return [Strong(text("benchmark.no_score", benchmark=benchmark.title))]
    metric = BY_KEY[next(iter(benchmark.metrics))]
    found = found_on(results, _scope(results).group, metric)
    changes = [one for row in scores_by_row(results, metric).values() if (one := change_of(row)) is not None]
    lines: list[str] = [Strong(forgot(found, benchmark))]
    if changes:
        lost, gained = sum(one < 0 for one in changes), sum(one > 0 for one in changes)
        lines.append(text("benchmark.rows", lost=Count(lost), gained=Count(gained)))
    lines += below(found)
    if benchmark.chance is not None:
        lines.append(text("benchmark.chance", chance=number(benchmark.chance)))
    return [*lines, *([Small(shown)] if (shown := rests_on(found)) else [])]


def _answers(results: Results, predictions: Sequence[Prediction], benchmark: Benchmark) -> list[Block]:
    """The rows that lost most; of a benchmark without a score the first ones."""
    answers: dict[str, dict[str, Prediction]] = {}
    for one in predictions:
        answers.setdefault(one.example.index, {})[one.system] = one
    order = [name for name in (BASE, TUNED) if name in results.systems] or [*results.systems]
    if not benchmark.scored:
        shown: dict[str, dict[str, float | None]] = {i: dict.fromkeys(order) for i in list(answers)[:LOST_SHOWN]}
        title = text("benchmark.answers")
    else:
        scores = scores_by_row(results, BY_KEY[next(iter(benchmark.metrics))])
        changes = {index: change for index, row in scores.items() if (change := change_of(row)) is not None}
        lost = sorted((change, index) for index, change in changes.items() if change < 0)[:LOST_SHOWN]
        shown = {index: scores[index] for _, index in lost}
        title = text("benchmark.lost")
    found = [sample({name: answers[index][name] for name in row}, row, False) for index, row in shown.items()]
    return [Heading(3, title), *found] if found else []


def _print(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(Text(visible(line)))
