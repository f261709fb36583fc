"""From predictions to results: every metric by row, category and group, between floors and ceiling. No torch here.

Answers that failed stay in every mean, with 0 in every text metric; rows that lack a metric's input are counted.
"""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import get_args

from eval.metrics.catalogue import FLOOR_METRICS, HEADLINE_METRICS, METRICS, OWN_METRICS
from eval.metrics.floors import CEILINGS, CONSTANT, CONTEXT_ONLY, FLOORS, OWN_LEAD, lead_as_long
from eval.metrics.memorised import Overlap
from eval.predictions import BASE, TUNED, Prediction
from eval.scoring.means import means, position_of
from eval.scoring.measured import Measured, measure
from eval.scoring.paired import differences, interaction
from eval.scoring.results import (
    RESULTS_VERSION,
    AnswerCounts,
    Differences,
    GroupScores,
    Position,
    Results,
    ScoredRow,
    Scores,
    Settings,
    SharedPassage,
)  # fmt: skip
from eval.scoring.rows import Rows, rounded_number, text_table
from eval.statistics.estimates import CONFIDENCE, Array
from sft.data.records import Example, Group
from sft.generation.settings import FinishReason

LONGEST_OVERLAPS = 5
NORMALISED = tuple(metric for metric in HEADLINE_METRICS if metric.floors and not metric.binary)


def score(
    predictions: Sequence[Prediction],
    resamples: int = 10_000,
    seed: int = 0,
    training_outputs: Mapping[str, str] | None = None,
) -> Results:
    """Results of every system over the same rows; identical predictions in any order give identical results.

    Arguments and errors as of `measure`.
    """
    return results_of(measure(predictions, resamples, seed, training_outputs))


def results_of(measured: Measured) -> Results:
    """The results of answers that were measured."""
    rows, tables = measured.rows, measured.tables
    limits, leads = limit_tables(rows), own_lead_tables(measured)
    own = text_table([example.output for example in rows.examples], rows.examples, OWN_METRICS)
    wanted = [METRICS] * len(tables) + [FLOOR_METRICS] * (len(leads) + len(limits)) + [OWN_METRICS]
    *found, reference = means(rows, [*tables.values(), *leads.values(), *limits.values(), own], wanted)
    n = len(tables)
    systems, own_leads = dict(zip(tables, found[:n], strict=True)), dict(zip(leads, found[n : 2 * n], strict=True))
    beside = dict(zip(limits, found[2 * n :], strict=True))
    beside |= {name: _on_context(beside[name], rows.counts.under) for name in CONTEXT_ONLY}
    pair = (rows, tables[BASE], tables[TUNED]) if {BASE, TUNED} <= tables.keys() else None
    return Results(
        schema_version=RESULTS_VERSION,
        settings=_settings(measured),
        rows=rows.counts,
        answers={name: _answer_counts(answers) for name, answers in measured.answers.items()},
        systems=systems,
        floors={name: beside[name] for name in FLOORS},
        ceilings={name: beside[name] for name in CEILINGS},
        reference=reference,
        normalised={
            name: _positions(rows, system, limits | {OWN_LEAD: leads[name]}) for name, system in tables.items()
        },
        deltas=differences(*pair) if pair else Differences(),
        interaction=interaction(*pair) if pair else {},
        overlap={name: _longest(found, rows.examples) for name, found in measured.overlaps.items()},
        signatures={metric.key: metric.signature for metric in METRICS},
        versions=_versions(),
        samples=_samples(measured),
        own_leads={name: _on_context(scores, rows.counts.under) for name, scores in own_leads.items()},
    )


def own_lead_tables(measured: Measured) -> dict[str, Array]:
    """By system the context's beginning, as long as each of its answers, as a (rows, METRICS) table."""
    rows, found = measured.rows, {}
    for name, answers in measured.answers.items():
        texts = ["" if answer.finish_reason == "error" else answer.text for answer in answers]
        found[name] = text_table(lead_as_long(rows.examples, texts), rows.examples, FLOOR_METRICS)
    return found


def limit_tables(rows: Rows) -> dict[str, Array]:
    """The floors and ceilings as (rows, METRICS) tables, by name."""
    return {
        name: text_table(answer(rows.examples, rows.seed), rows.examples, FLOOR_METRICS)
        for name, answer in (FLOORS | CEILINGS).items()
    }


def _on_context(scores: Scores, under: Mapping[str, Group]) -> Scores:
    """The scores of context rows alone, for what answers no others; `under` is the group of each category."""
    return Scores(
        {name: found for name, found in scores.categories.items() if under[name] == "context"},
        {name: found for name, found in scores.groups.items() if name == "context"},
    )


def _settings(measured: Measured) -> Settings:
    headline, rows = [metric.key for metric in HEADLINE_METRICS], measured.rows
    clusters = "rows with one context"
    return Settings(measured.generation, rows.resamples, rows.seed, CONFIDENCE, clusters, headline, CONSTANT)


def _positions(rows: Rows, system: Array, limits: Mapping[str, Array]) -> GroupScores[Position]:
    groups = {scope.name: at for scope, at in rows.scopes.items() if scope.is_group}
    return GroupScores(
        {name: {m.key: position_of(rows, at, m, system, limits) for m in NORMALISED} for name, at in groups.items()}
    )


def _answer_counts(answers: Sequence[Prediction]) -> AnswerCounts:
    reasons = Counter(answer.finish_reason for answer in answers)
    empty, shortened = sum(not a.text.strip() for a in answers), sum(a.context_shortened for a in answers)
    ended = {reason: reasons[reason] for reason in get_args(FinishReason) if reason != "chosen"}
    return AnswerCounts(**ended, empty=empty, context_shortened=shortened)


def _longest(overlaps: Sequence[Overlap], examples: Sequence[Example]) -> list[SharedPassage]:
    pairs = sorted(zip(overlaps, examples, strict=True), key=lambda pair: -pair[0].length)[:LONGEST_OVERLAPS]
    return [
        SharedPassage(row.index, row.category, *overlap, row.named if row.named != row.index else None)
        for overlap, row in pairs
    ]


def _versions() -> dict[str, str]:
    packages = ("fugashi", "unidic-lite", "rapidfuzz", "sacrebleu", "numpy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _samples(measured: Measured) -> list[ScoredRow]:
    found = []
    for name, answers in measured.answers.items():
        for answer, scores, cluster in zip(answers, measured.scores[name], measured.rows.clusters, strict=True):
            rounded = {
                key: rounded_number(value) if isinstance(value, float) else value for key, value in scores.items()
            }
            row = answer.example
            place = row.index, row.category, row.group, int(cluster)
            weights = {metric.key: metric.weight(row) for metric in METRICS if metric.weight}
            found.append(ScoredRow(name, *place, answer.finish_reason, rounded, weights))
    return found
