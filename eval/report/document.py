"""The report of one scored run, as blocks: the first screen, and folded behind it what it rests on. No torch here."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.metrics.catalogue import FACTS_RECALL, HEADLINE, in_section
from eval.metrics.metric import Metric, Section
from eval.predictions import Prediction
from eval.render.numbers import number, p_is, with_interval
from eval.report.figures import copy_figure, delta_figure, forest_figure, length_figure
from eval.report.first_screen import Subject, first_screen
from eval.report.names import (
    category_word,
    floor_name,
    group_title,
    metric_word,
    scope_name,
    system_name,
)  # fmt: skip
from eval.report.samples import sample_blocks
from eval.report.score_tables import behaviour_table, score_table
from eval.report.sentences import delta_word, evidence
from eval.report.sweep import sweep_blocks
from eval.report.view import measured
from eval.scoring.results import ON_CONTEXT, Results, Scope
from eval.scoring.sweep import SweepResults
from sft.config.repetition_penalty import PENALTY, SCOPE
from sft.data.records import GROUPS, Group
from sft.page.blocks import NOTHING, Block, Bullets, Heading, Strong, Table, paragraph
from sft.system.texts import Count, series, space, stop, text, told

PASSAGE_SHOWN = 300


def document(
    results: Results, predictions: Sequence[Prediction], subject: Subject, sweep: SweepResults | None = None
) -> list[Block]:
    """The whole report. `results` is what `score` returned for these predictions, `sweep` what a sweep of them gave."""
    return [*first_screen(results, predictions, subject), *folded(results, predictions, sweep)]


def folded(results: Results, predictions: Sequence[Prediction], sweep: SweepResults | None = None) -> list[Block]:
    """What a first screen rests on."""
    return [
        _section(text("report.figures")),
        *_interaction(results),
        paragraph(text("body.legend")),
        forest_figure(results),
        *delta_figure(results),
        *(block for group in GROUPS for block in _group(results, group)),
        *_penalty(results, sweep),
        *_behaviour(results),
        _section(text("report.samples")),
        *sample_blocks(results, predictions),
        *provenance(results),
        *_caveats(results),
    ]


def _section(title: str) -> Heading:
    """The heading of a folded section."""
    return Heading(2, title, folded=True)


def _interaction(results: Results) -> list[Block]:
    interaction = results.interaction.get(HEADLINE.key)
    if not interaction or interaction.mean is None:
        return []
    found = {"difference": with_interval(interaction, signed=True), "p": p_is(interaction.p, interaction.p_is_bound)}
    change = text("body.interaction", metric=metric_word(HEADLINE), **found)
    return [paragraph(Strong(text("body.context_against_open")), f": {change}")]


def _group(results: Results, group: Group) -> list[Block]:
    scopes = results.rows.scopes(group)
    if not scopes:
        return []
    every = in_section("overlap", "correctness", "free of decoding")
    metrics = [metric for metric in every if not metric.part_of and not metric.needs_context]
    tables = [score_table(results, scopes, metrics), *_reached(results, scopes, metrics)]
    return [_section(group_title(group)), *(_context(results, scopes) if group == "context" else tables)]


def _reached(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[Block]:
    """Which scores of a table copying reaches, in words."""
    found = reached_by_copying(results, scopes, metrics)
    return [paragraph(Strong(text("body.reached")), f" {series(found, '; ')}{stop()}")] if found else []


def reached_by_copying(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[str]:
    """In words, each score of a group that needs no understanding: its best floor is as high."""
    found = []
    for metric in metrics:
        for scope in (one for one in scopes if one.is_group):
            for name, scores in results.systems.items():
                floor, mean = results.best_floor(name, scope, metric), scores.of(scope, metric).mean
                if mean is not None and floor.mean is not None and floor.mean >= mean > 0:
                    place = {"metric": metric_word(metric), "scope": scope_name(scope), "system": system_name(name)}
                    scored = {"score": number(mean), "floor": floor_name(floor.name), "reached": number(floor.mean)}
                    found.append(text("body.reached_by", **place, **scored))
    return found


def _context(results: Results, scopes: Sequence[Scope]) -> list[Block]:
    blocks: list[Block] = []
    for section, (title, *explained) in _context_sections().items():
        metrics = in_section(section)
        table = behaviour_table if section == "grounding" else score_table
        if measured(results.systems, scopes, metrics):
            blocks += [Heading(3, title), *map(paragraph, explained), table(results, scopes, metrics)]
            blocks += [] if section == "grounding" else _reached(results, scopes, metrics)
            blocks += _facts(results) if section == "correctness" else []
    return [*blocks, *copy_figure(results)]


def _context_sections() -> dict[Section, list[str]]:
    """Sections of the metrics on context questions: title, and what to know before reading the numbers."""
    return {
        "overlap": [text("body.overlap")],
        "correctness": [text("body.correctness"), text("body.correctness_note")],
        "grounding": [text("body.grounding"), text("body.grounding_note")],
        "free of decoding": [text("body.free_of_decoding"), text("body.free_of_decoding_note")],
    }


def _facts(results: Results) -> list[Block]:
    """What the difference in facts found says: it is in no family, and its p not corrected."""
    delta = results.deltas.of(ON_CONTEXT, FACTS_RECALL)
    if delta.mean is None:
        return []
    place = series([metric_word(FACTS_RECALL), scope_name(ON_CONTEXT)])
    shown = f"{stop()}{space()}{evidence(delta, FACTS_RECALL)}"
    return [paragraph(Strong(f"{place}: {delta_word(delta)}"), shown)]


def _penalty(results: Results, sweep: SweepResults | None) -> list[Block]:
    keys = (PENALTY, SCOPE, "temperature", "max_new_tokens")
    header = [
        text("body.answered_with"),
        text("body.penalty"),
        text("body.scope"),
        text("body.temperature"),
        text("body.tokens_at_most"),
    ]
    rows = [
        [system_name(name), *(_setting(settings.get(key, NOTHING)) for key in keys)]
        for name, settings in results.settings.generation.items()
    ]
    return [
        _section(text("report.penalty")),
        paragraph(text("body.scope_matters")),
        Table(header, rows),
        *(sweep_blocks(sweep) if sweep else [paragraph(text("body.not_swept"))]),
    ]


def _behaviour(results: Results) -> list[Block]:
    header = [
        text("body.answers"),
        text("body.ended"),
        text("body.at_heading"),
        text("body.at_stop"),
        text("body.at_limit"),
        text("body.failed"),
        text("body.empty"),
        text("body.shortened"),
    ]
    rows = [[system_name(name), *map(str, dataclasses.astuple(counts))] for name, counts in results.answers.items()]
    scopes = results.rows.scopes()
    return [
        _section(text("report.behaviour")),
        Table(header, rows),
        length_figure(results),
        behaviour_table(results, scopes, in_section("behaviour")),
        Heading(3, text("body.style")),
        paragraph(text("body.style_note")),
        behaviour_table(results, [scope for scope in scopes if scope.is_group], in_section("style")),
        Heading(3, text("body.passages")),
        *_memorised(results),
    ]


def _memorised(results: Results) -> list[Block]:
    rows = [
        [
            system_name(name),
            f"{told(p.named or p.index)} · {category_word(p.category)}",
            _shortened(p.passage),
            str(p.length),
            told(str(p.training_index)),
        ]
        for name, passages in results.overlap.items()
        for p in sorted(passages, key=lambda p: (-p.length, p.index))
        if p.length
    ]
    if not rows:
        return [paragraph(text("body.no_passages"))]
    header = [
        text("body.system"),
        text("body.row"),
        text("body.passage"),
        text("body.characters"),
        text("body.training_row"),
    ]
    return [paragraph(text("body.passages_note")), Table(header, rows, left=3, sectioned=True)]


def _shortened(passage: str) -> str:
    return passage if len(passage) <= PASSAGE_SHOWN else f"{passage[:PASSAGE_SHOWN]}…"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def provenance(results: Results) -> list[Block]:
    settings = results.settings
    generation = settings.generation
    keys = sorted({key for found in generation.values() for key in found})
    rows = [[key, *(_setting(found.get(key, NOTHING)) for found in generation.values())] for key in keys]
    made = {"seed": settings.seed, "schema": results.schema_version}
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        _section(text("report.provenance")),
        *_about(results),
        Table([text("body.generation"), *map(system_name, generation)], rows),
        paragraph(text("body.intervals", resamples=Count(settings.resamples), **made)),
        Table([text("benchmark.metric"), text("body.signature")], list(map(list, results.signatures.items())), left=2),
        paragraph(text("body.versions", versions=versions)),
    ]


def _about(results: Results) -> list[Block]:
    about = results.about
    if about is None:
        return [paragraph(text("body.no_record"))]
    base = about.base_commit or about.base_sha256 or text("body.not_recorded")
    data = Path(about.data).name if about.data else text("body.held_out")
    rows = [
        [text("body.run_begun"), about.run],
        [text("body.base_model"), f"{Path(about.base).name if about.base_sha256 else about.base} ({base[:12]})"],
        [text("body.learned"), about.learned[:12]],
        [text("body.template"), about.template[:12]],
        [text("body.rows"), f"{data} ({about.rows[:12]})"],
        [text("body.answers"), (results.predictions or "")[:12]],
        [text("body.as_trained"), series(map(told, about.deviations), "; ") or text("body.as_trained_yes")],
    ]
    return [Table([text("body.whose_answers"), text("body.hashes")], rows, left=2)]


def _caveats(results: Results) -> list[Block]:
    scopes = results.rows.scopes()
    smallest = min([scope for scope in scopes if not scope.is_group] or scopes, key=results.rows.of)
    counts = {"rows": results.rows.total, "clusters": results.rows.clusters, "least": results.rows.of(smallest)}
    found = counts | {"smallest": scope_name(smallest)}
    items = (
        text("body.caveat_rows_group", **found) if smallest.is_group else text("body.caveat_rows_category", **found),
        text("body.caveat_holm"),
        text("body.caveat_floor"),
        text("body.caveat_overlap"),
        text("body.caveat_translated"),
        text("body.caveat_failed"),
    )
    return [_section(text("report.caveats")), Bullets(items)]
