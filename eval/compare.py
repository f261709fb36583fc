"""`python -m eval compare`: systems of several runs over the rows that all held out, each against the first."""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from eval.border import json_text
from eval.metrics.catalogue import CORRECT, HEADLINE, REPORTED
from eval.metrics.metric import Metric
from eval.predictions import IN_RUN, TUNED, Prediction, home_of, read_predictions, run_name
from eval.render.markdown import render_markdown
from eval.render.numbers import number, p_value, with_interval
from eval.render.terminal import CATEGORY_CELLS, Row, print_rows
from eval.report.first_screen import ROWS_PAGE, all_rows, small
from eval.report.names import metric_title, metric_word, scope_name, scope_word, why_rows_do_not_add_up
from eval.report.rows_page import Look, rows_page
from eval.report.score_tables import score_cell
from eval.report.sentences import Found, rests_on, right, sentence
from eval.report.view import measured
from eval.scoring.common_rows import common_rows, in_words
from eval.scoring.measured import Measured, measure
from eval.scoring.paired import differences, interaction
from eval.scoring.results import (
    AnswerCounts,
    Differences,
    Interaction,
    Results,
    RowCounts,
    Scores,
    Settings,
    best,
)  # fmt: skip
from eval.scoring.score import results_of
from sft.page.blocks import Beside, Block, Cell, Heading, Small, Strong, Table, paragraph
from sft.page.html import render_html
from sft.run.manifest import read_manifest
from sft.run.provenance import provenance_of
from sft.system.errors import UserError, say, warn
from sft.system.files import output_directory, short_name, text_sha256, write_whole
from sft.system.texts import language, series, text, told
from sft.system.visible import counted, narrow, visible

COMPARISON_VERSION = 1


class Answered(NamedTuple):
    """One system's answers, the name it goes by here, and the file they came from."""

    name: str
    source: Path
    predictions: list[Prediction]
    otherwise: list[str]
    """In which ways these are not of the run that they lie in, as it was trained."""


class Together(NamedTuple):
    """Answers to the rows that all answered, measured, and how many of each system's rows others lack."""

    measured: Measured
    results: Results
    alone: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class FromFirst(Differences):
    """Differences of a system from the first; `interaction` as in `Results`."""

    interaction: dict[str, Interaction] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What comparison.json holds: as `Results`, and each system − the first.

    `sources` is the file and the system in it that each one's answers came from, `alone` how many rows each one
    answered that not all did, which are left out.
    """

    schema_version: int
    settings: Settings
    sources: dict[str, dict[str, str]]
    rows: RowCounts
    answers: dict[str, AnswerCounts]
    systems: dict[str, Scores]
    floors: dict[str, Scores]
    differences: dict[str, FromFirst]
    alone: dict[str, int]


def compare_runs(specs: Sequence[str], output: Path | None, resamples: int = 10_000, seed: int = 0) -> None:
    """Compare, write comparison.{json,md,html} and rows.html, and print the table."""
    if len(specs) < 2:
        raise UserError("there is nothing to compare: give two runs or more")
    answered = read_answered(specs)
    together = put_together(answered, resamples, seed)
    comparison = comparison_of(answered, together)
    directory = output_directory(output or directory_beside(answered, "compare"))
    blocks = comparison_blocks(comparison)
    texts = {"comparison.md": render_markdown(blocks), "comparison.html": render_html(blocks, language())}
    first, *others = comparison.systems
    look = Look(_title(comparison), HEADLINE, first, tuple(others), "comparison.html")
    predictions = [one for answers in together.measured.answers.values() for one in answers]
    texts[ROWS_PAGE] = rows_page(together.results.samples, predictions, look)
    for name, content in ({"comparison.json": json_text(dataclasses.asdict(comparison))} | texts).items():
        write_whole(directory / name, content)
    print_comparison(comparison, Console())
    say(text("report.comparison_written", path=directory / "comparison.md"))


def read_answered(specs: Sequence[str]) -> list[Answered]:
    """Read `RUN`, `FILE`, `RUN:system` or `FILE:system`, each one system's answers; tuned, or the only one there is,
    where none is named.

    They go by the run's or file's name, with the system and then the whole path where that alone would not tell them
    apart. Raises UserError for what is not there.
    """
    found, usual = [], []
    for spec in specs:
        path, named = source_of(spec)
        predictions = list(read_predictions(path))
        known = list(dict.fromkeys(prediction.system for prediction in predictions))
        chosen = named or (known[0] if len(known) == 1 else TUNED)
        own = [prediction for prediction in predictions if prediction.system == chosen]
        if not own:
            there = ", ".join(known)
            raise UserError(f"{path}: no answers of system {chosen!r}; it has {there}; choose one with {path}:SYSTEM")
        found.append((path, chosen, own))
        usual += [run_name(path)] * (named is None or chosen == TUNED)
    namings = (
        usual,
        [f"{run_name(path)}:{chosen}" for path, chosen, _ in found],
        [f"{path}:{chosen}" for path, chosen, _ in found],  # runs of one name in two places
    )
    names = next((names for names in namings if len(set(names)) == len(found)), namings[-1])
    repeated = [name for at, name in enumerate(names) if name in names[:at]]
    if repeated:
        raise UserError(f"{repeated[0]} is given twice; give different runs, files or systems")
    answered = [Answered(name, path, own, _otherwise(path)) for name, (path, _, own) in zip(names, found, strict=True)]
    warn(f"{one.name}: {'; '.join(one.otherwise)}" for one in answered if one.otherwise)
    return answered


def _otherwise(path: Path) -> list[str]:
    about, run = provenance_of(path), home_of(path)
    if about is None:
        return []
    here = (run / "manifest.json").is_file()
    asked = [f"{counted(about.shots, 'example')} in the prompt"] * bool(about.shots)
    asked += ["a short answer asked for"] * about.brief
    another = here and read_manifest(run).started != about.run
    return [*about.deviations, *asked, *["answers of another run"] * another]


def source_of(spec: str) -> tuple[Path, str | None]:
    """The file of answers that `RUN`, `FILE`, `RUN:system` or `FILE:system` names, and the system; None: not named.

    Raises UserError where there is none.
    """
    path, chosen = Path(spec), None
    if not path.exists() and ":" in spec:
        before, _, chosen = spec.rpartition(":")
        path = Path(before)
    if path.is_dir():
        path = path / IN_RUN if (path / IN_RUN).is_file() else path / IN_RUN.name
    if not path.is_file():
        raise UserError(f"{spec}: no predictions there; `python -m eval RUN` writes them, or give a predictions.jsonl")
    return path, chosen


def directory_beside(answered: Sequence[Answered], command: str) -> Path:
    """Where a command's files about the others go: a directory beside the first's answers, for these others alone.

    A run beside the first goes by its name. Others may share theirs, or have one that no directory could: a hash of
    where they are tells those apart.
    """
    first, *others = answered
    labels = []
    for one in others:
        place = os.path.relpath(home_of(one.source), home_of(first.source).parent)
        systems = [named.predictions[0].system for named in (first, one)]
        if systems == [TUNED, TUNED] and re.fullmatch(r"[\w.\-]+", place):
            labels.append(place)
        else:
            told_apart = text_sha256(["\0".join([place, *systems])])[:8]
            labels.append(re.sub(r"[^\w.\-]+", "-", f"{Path(one.name).name}-{told_apart}"))
    return first.source.parent / short_name(f"{command}-{'+'.join(labels)}")


def compare(answered: Sequence[Answered], resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Means of every system and paired differences over the rows that all answered; each answer is measured once.

    Raises UserError when there is no such row.
    """
    return comparison_of(answered, put_together(answered, resamples, seed))


def put_together(answered: Sequence[Answered], resamples: int, seed: int) -> Together:
    """All answers to the rows that all answered, measured under the names that they go by here."""
    common = common_rows({one.name: one.predictions for one in answered})
    renamed = [dataclasses.replace(p, system=name) for name, found in common.answers.items() for p in found]
    measured = measure(renamed, resamples, seed)
    return Together(measured, results_of(measured), common.alone)


def comparison_of(answered: Sequence[Answered], together: Together) -> Comparison:
    """Means and differences of what was measured together."""
    (measured, results, alone), tables = together, together.measured.tables
    names = [one.name for one in answered]
    found = {}
    for name in names[1:]:
        pair = measured.rows, tables[names[0]], tables[name]
        changes = differences(*pair)
        found[name] = FromFirst(changes.categories, changes.groups, interaction(*pair))
    return Comparison(
        schema_version=COMPARISON_VERSION,
        settings=results.settings,
        sources={one.name: _described(one) for one in answered},
        rows=results.rows,
        answers={name: results.answers[name] for name in names},
        systems={name: results.systems[name] for name in names},
        floors=results.floors,
        differences=found,
        alone=alone,
    )


def _described(one: Answered) -> dict[str, str]:
    otherwise = {"otherwise": "; ".join(one.otherwise)} if one.otherwise else {}
    return {"file": one.source.name, "system": one.predictions[0].system, **otherwise}


def comparison_blocks(comparison: Comparison) -> list[Block]:
    """The comparison as a document."""
    first, *others = comparison.systems
    blocks: list[Block] = [
        Heading(1, _title(comparison)),
        paragraph(all_rows()),
        *(block for name in others for block in _sentences(comparison, name)),
        paragraph(text("compare.paired", found=_words(comparison), first=first)),
    ]
    for name, source in comparison.sources.items():
        if "otherwise" in source:
            otherwise = series(map(told, source["otherwise"].split("; ")), "; ")
            said = text("compare.otherwise", deviations=otherwise)
            blocks.append(paragraph(Strong(name), f": {said}"))
    for name in others:
        change = comparison.differences[name].interaction.get(HEADLINE.key)
        if change and change.mean is not None:
            found = {"difference": with_interval(change, signed=True), "p": p_value(change.p, change.p_is_bound)}
            blocks.append(paragraph(text("compare.interaction", name=name, metric=metric_word(HEADLINE), **found)))
    shown = [metric for metric in REPORTED if metric.compared]
    for metric in measured(comparison.systems, comparison.rows.scopes(), shown):
        blocks += [Heading(2, metric_title(metric)), _table(comparison, metric)]
    blocks += small(why_rows_do_not_add_up(comparison.rows))
    settings = comparison.settings.generation
    keys = sorted({key for values in settings.values() for key in values})
    rows = [[key, *(json.dumps(settings[n].get(key), ensure_ascii=False) for n in (first, *others))] for key in keys]
    return [*blocks, Heading(2, text("compare.settings")), Table([text("sweep.setting"), first, *others], rows)]


def _title(comparison: Comparison) -> str:
    first, *others = comparison.systems
    return text("report.title_comparison", first=first, others=", ".join(others))


def _found(comparison: Comparison, name: str) -> list[Found]:
    """What is to be said of each group that has rows, of one system against the first."""
    first, last = (comparison.systems[one] for one in (next(iter(comparison.systems)), name))
    return [
        Found(
            group=scope.group,
            rows=comparison.rows.of(scope),
            before=first.of(scope, HEADLINE),
            after=last.of(scope, HEADLINE),
            right=(first.of(scope, CORRECT), last.of(scope, CORRECT)),
            delta=comparison.differences[name].of(scope, HEADLINE),
            floor=best(comparison.floors, scope, HEADLINE),
        )
        for scope in comparison.rows.scopes()
        if scope.is_group
    ]


def _sentences(comparison: Comparison, name: str) -> list[Block]:
    """A column for each group that has rows: what it says, and on what it rests."""
    first = next(iter(comparison.systems))
    columns = []
    for found in _found(comparison, name):
        shown = paragraph(Small(rests_on(found)))
        columns.append((paragraph(Strong(sentence(found))), paragraph(right(found)), shown))
    titled = [Heading(3, text("report.against", first=first, name=name))] * (len(comparison.differences) > 1)
    return [*titled, Beside(tuple(columns))]


def _table(comparison: Comparison, metric: Metric) -> Table:
    first, *others = comparison.systems
    change = text("compare.difference"), text("body.p_holm")
    header = [text("rows.category"), text("body.n"), first, *(title for name in others for title in (name, *change))]
    scopes = comparison.rows.scopes()
    rows: list[list[str | Cell]] = []
    for scope in scopes:
        means = {name: score_cell(scores.of(scope, metric)) for name, scores in comparison.systems.items()}
        rows.append([scope_name(scope), str(comparison.rows.of(scope)), means[first]])
        for name in others:
            delta = comparison.differences[name].of(scope, metric)
            rows[-1] += [means[name], score_cell(delta, signed=True), p_value(delta.p_holm, delta.p_is_bound)]
    return Table(header, rows, strong=frozenset(at for at, scope in enumerate(scopes) if scope.is_group))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Character F1 of every system and its difference from the first, by category and group."""
    first, *others = comparison.systems
    for name in others:
        rows = []
        for scope in comparison.rows.scopes():
            means = [number(comparison.systems[n].of(scope, HEADLINE).mean) for n in (first, name)]
            delta = comparison.differences[name].of(scope, HEADLINE)
            cells = [
                str(comparison.rows.of(scope)),
                *means,
                with_interval(delta, signed=True),
                p_value(delta.p_holm, delta.p_is_bound),
            ]
            rows.append(Row(narrow(scope_word(scope), CATEGORY_CELLS), cells, scope.is_group))
        named = {"name": narrow(name, 24), "first": narrow(first, 24)}
        title = text("report.metric_against", metric=metric_word(HEADLINE), **named)
        header = [text("rows.rows"), first, name, text("report.change"), text("report.holm_p")]
        print_rows(title, header, rows, console)
        for found in _found(comparison, name):
            for line in (sentence(found), right(found), rests_on(found), ""):
                console.print(Text(visible(line)))
    ends = [*why_rows_do_not_add_up(comparison.rows), *([_words(comparison)] if any(comparison.alone.values()) else [])]
    for line in ends:
        console.print(Text(visible(line)))


def _words(comparison: Comparison) -> str:
    return in_words(comparison.rows.total, comparison.alone)
