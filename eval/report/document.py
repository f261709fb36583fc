"""The report of one scored run, as blocks: the first screen, and folded behind it what it rests on. No torch here."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.metrics.catalogue import FACTS_RECALL, HEADLINE, in_section
from eval.metrics.metric import Metric
from eval.predictions import Prediction
from eval.render.numbers import p_is, with_interval
from eval.report.figures import copy_figure, delta_figure, forest_figure, length_figure
from eval.report.first_screen import Subject, first_screen
from eval.report.samples import sample_blocks
from eval.report.score_tables import behaviour_table, score_table
from eval.report.sentences import delta_word, evidence
from eval.report.sweep import sweep_blocks
from eval.report.view import TITLES, WORDS, measured, reached_by_copying
from eval.scoring.results import ON_CONTEXT, Results, Scope
from eval.scoring.sweep import SweepResults
from sft.config.repetition_penalty import PENALTY, SCOPE, SCOPE_MATTERS
from sft.data.records import Group, category_label
from sft.page.blocks import NOTHING, Block, Bullets, Heading, Strong, Table, paragraph
from sft.system.texts import text

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
        paragraph(WORDS["legend"]),
        forest_figure(results),
        *delta_figure(results),
        *(block for group in TITLES for block in _group(results, group)),
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
    change = f": the difference on context minus that on open is {with_interval(interaction, signed=True)}"
    p = f" in {HEADLINE.name} (p {p_is(interaction.p, interaction.p_is_bound)})."
    return [paragraph(Strong("Context against open"), change + p)]


def _group(results: Results, group: Group) -> list[Block]:
    scopes = results.rows.scopes(group)
    if not scopes:
        return []
    every = in_section("overlap", "correctness", "free of decoding")
    metrics = [metric for metric in every if not metric.part_of and not metric.needs_context]
    tables = [score_table(results, scopes, metrics), *_reached(results, scopes, metrics)]
    titles = {
        "open": text("report.open_qa"),
        "context": text("report.context_qa"),
        "other": text("report.other_categories"),
    }
    return [_section(titles[group]), *(_context(results, scopes) if group == "context" else tables)]


def _reached(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[Block]:
    """Which scores of a table copying reaches, in words."""
    found = reached_by_copying(results, scopes, metrics)
    return [paragraph(Strong(WORDS["reached"]), f" {'; '.join(found)}.")] if found else []


def _context(results: Results, scopes: Sequence[Scope]) -> list[Block]:
    blocks: list[Block] = []
    for section, (title, *explained) in WORDS["context"].items():
        metrics = in_section(section)
        table = behaviour_table if section == "grounding" else score_table
        if measured(results.systems, scopes, metrics):
            blocks += [Heading(3, title), *map(paragraph, explained), table(results, scopes, metrics)]
            blocks += [] if section == "grounding" else _reached(results, scopes, metrics)
            blocks += _facts(results) if section == "correctness" else []
    return [*blocks, *copy_figure(results)]


def _facts(results: Results) -> list[Block]:
    """What the difference in facts found says: it is in no family, and its p not corrected."""
    delta = results.deltas.of(ON_CONTEXT, FACTS_RECALL)
    if delta.mean is None:
        return []
    shown = evidence(delta, FACTS_RECALL)
    return [paragraph(Strong(f"{FACTS_RECALL.name}, {ON_CONTEXT.label}: {delta_word(delta)}"), f". {shown}")]


def _penalty(results: Results, sweep: SweepResults | None) -> list[Block]:
    keys = (PENALTY, SCOPE, "temperature", "max_new_tokens")
    rows = [
        [name, *(_setting(settings.get(key, NOTHING)) for key in keys)]
        for name, settings in results.settings.generation.items()
    ]
    return [
        _section(text("report.penalty")),
        paragraph(SCOPE_MATTERS),
        Table(["answered with", "penalty", "scope", "temperature", "new tokens at most"], rows),
        *(sweep_blocks(sweep) if sweep else [paragraph(WORDS["not_swept"])]),
    ]


def _behaviour(results: Results) -> list[Block]:
    header = ["answers", "ended by itself", "cut at a heading", "at a stop string", "at the limit", "failed", "empty"]
    header += ["context shortened"]
    rows = [[name, *map(str, dataclasses.astuple(counts))] for name, counts in results.answers.items()]
    scopes = results.rows.scopes()
    return [
        _section(text("report.behaviour")),
        Table(header, rows),
        length_figure(results),
        behaviour_table(results, scopes, in_section("behaviour")),
        Heading(3, "Style, beside the references' own"),
        paragraph(WORDS["style"]),
        behaviour_table(results, [scope for scope in scopes if scope.is_group], in_section("style")),
        Heading(3, "Passages shared with training outputs"),
        *_memorised(results),
    ]


def _memorised(results: Results) -> list[Block]:
    rows = [
        [
            name,
            f"{p.named or p.index} · {category_label(p.category)}",
            _shortened(p.passage),
            str(p.length),
            str(p.training_index),
        ]
        for name, passages in results.overlap.items()
        for p in sorted(passages, key=lambda p: (-p.length, p.index))
        if p.length
    ]
    if not rows:
        return [paragraph(WORDS["no_passages"])]
    header = ["system", "row", "passage", "characters", "training row"]
    return [paragraph(WORDS["passages"]), Table(header, rows, left=3, sectioned=True)]


def _shortened(text: str) -> str:
    return text if len(text) <= PASSAGE_SHOWN else f"{text[:PASSAGE_SHOWN]}…"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def provenance(results: Results) -> list[Block]:
    settings = results.settings
    generation = settings.generation
    keys = sorted({key for found in generation.values() for key in found})
    rows = [[key, *(_setting(found.get(key, NOTHING)) for found in generation.values())] for key in keys]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        _section(text("report.provenance")),
        *_about(results),
        Table(["generation", *generation], rows),
        paragraph(
            WORDS["intervals"].format(resamples=settings.resamples, seed=settings.seed, schema=results.schema_version)
        ),
        Table(["metric", "signature"], list(map(list, results.signatures.items())), left=2),
        paragraph(f"Versions: {versions}."),
    ]


def _about(results: Results) -> list[Block]:
    about = results.about
    if about is None:
        return [paragraph("Nothing beside these answers says which model they are of.")]
    base = about.base_commit or about.base_sha256 or "not recorded"
    rows = [
        ["run, begun", about.run],
        ["base model", f"{Path(about.base).name if about.base_sha256 else about.base} ({base[:12]})"],
        ["what was learned", about.learned[:12]],
        ["template", about.template[:12]],
        ["rows", f"{Path(about.data).name if about.data else 'held out by the run'} ({about.rows[:12]})"],
        ["answers", (results.predictions or "")[:12]],
        ["as it was trained", "; ".join(about.deviations) or "yes"],
    ]
    return [Table(["whose answers", "(hashes: first 12 digits)"], rows, left=2)]


def _caveats(results: Results) -> list[Block]:
    scopes = results.rows.scopes()
    smallest = min([scope for scope in scopes if not scope.is_group] or scopes, key=results.rows.of)
    words = {"kind": "group" if smallest.is_group else "category", "smallest": smallest.label}
    items = (line.format(rows=results.rows, least=results.rows.of(smallest), **words) for line in WORDS["caveats"])
    return [_section(text("report.caveats")), Bullets(tuple(items))]
