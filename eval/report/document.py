"""The report of one scored run, as blocks in the order a reader decides in. No torch here."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from eval.metrics.catalogue import FACTS_RECALL, HEADLINE, in_section
from eval.predictions import Prediction
from eval.render.blocks import Block, Bullets, Heading, Strong, Table, paragraph
from eval.render.numbers import NOTHING, p_value, with_interval
from eval.report.figures import copy_figure, delta_figure, forest_figure, length_figure
from eval.report.samples import sample_blocks
from eval.report.score_tables import behaviour_table, score_table
from eval.report.sweep import sweep_blocks
from eval.report.view import TITLES, measured, verdict
from eval.scoring.results import ON_CONTEXT, Results
from eval.scoring.sweep import SweepResults
from sft.config.repetition_penalty import PENALTY, SCOPE, SCOPE_MATTERS

LEGEND = (
    "Mean [95% interval] over the rows of each category; a group is the mean over all of its rows. The best floor is "
    "the highest of what needs no understanding: the question echoed, another row's reference, one constant text, the "
    "lead of the context. The oracle is the best single sentence of the context. Normalised: 0 is the best floor, 1 "
    "the oracle."
)
PASSAGE_SHOWN = 300


def document(results: Results, predictions: Sequence[Prediction], sweep: SweepResults | None = None) -> list[Block]:
    """The whole report. `results` is what `score` returned for these predictions, `sweep` what a sweep of them gave."""
    blocks: list[Block] = [Heading(1, "Evaluation by task category")]
    if results.about and results.about.deviations:
        blocks.append(paragraph(Strong("Not the model as it was trained"), f": {'; '.join(results.about.deviations)}."))
    blocks += [*_verdicts(results), paragraph(LEGEND)]
    blocks += [forest_figure(results), *delta_figure(results)]
    blocks += [*_group(results, "open"), *_context(results), *_group(results, "other")]
    blocks += [*_penalty(results, sweep), *_behaviour(results)]
    blocks += [Heading(2, "Samples"), *sample_blocks(results, predictions)]
    return [*blocks, *_provenance(results), *_caveats(results)]


def _verdicts(results: Results) -> list[Block]:
    lines: list[Block] = [verdict(results, group) for group in ("open", "context")]
    if measured(results.systems, [ON_CONTEXT], [FACTS_RECALL]):
        lines.append(verdict(results, "context", FACTS_RECALL))
    interaction = results.interaction.get(HEADLINE.key)
    if interaction and interaction.mean is not None:
        change = f": the difference on context minus that on open is {with_interval(interaction, signed=True)}"
        p = f" in {HEADLINE.name} (p = {p_value(interaction.p)}).".replace("= <", "< ")
        lines.append(paragraph(Strong("Context against open"), change + p))
    return lines


def _group(results: Results, group: str) -> list[Block]:
    scopes = results.rows.scopes(group)
    if not scopes:
        return []
    every = in_section("overlap", "correctness", "free of decoding")
    metrics = [metric for metric in every if not metric.part_of and not metric.needs_context]
    return [Heading(2, TITLES[group]), score_table(results, scopes, metrics)]


def _context(results: Results) -> list[Block]:
    scopes = results.rows.scopes("context")
    if not scopes:
        return []
    blocks: list[Block] = [Heading(2, TITLES["context"])]
    blocks += [Heading(3, "Overlap with the reference"), score_table(results, scopes, in_section("overlap"))]
    if measured(results.systems, scopes, in_section("correctness")):
        blocks += [
            Heading(3, "Correctness"),
            paragraph(
                "Facts are numbers, dates, names and katakana words: those of the reference that the answer states. "
                "Overlap cannot tell 17回 from 2019年."
            ),
            score_table(results, scopes, in_section("correctness")),
        ]
    if measured(results.systems, scopes, in_section("grounding")):
        blocks += [
            Heading(3, "Grounding, beside the references' own"),
            paragraph(
                "Neither high nor low is good by itself: an answer should take from the context about as much as the "
                "reference does. Unsupported: facts of the answer that neither context nor question states."
            ),
            behaviour_table(results, scopes, in_section("grounding")),
        ]
    if measured(results.systems, scopes, in_section("free of decoding")):
        blocks += [
            Heading(3, "Free of decoding"),
            paragraph(
                "No text is generated here, so no decoding setting can change it. The gain is what the context takes "
                "off the model's surprise at the reference: near 0 the model does not use the context."
            ),
            score_table(results, scopes, in_section("free of decoding")),
        ]
    return [*blocks, *copy_figure(results)]


def _penalty(results: Results, sweep: SweepResults | None) -> list[Block]:
    generation = results.settings.generation
    keys = (PENALTY, SCOPE, "temperature", "max_new_tokens")
    rows = [[name, *(_setting(settings.get(key, NOTHING)) for key in keys)] for name, settings in generation.items()]
    blocks: list[Block] = [
        Heading(2, "Repetition penalty"),
        paragraph(SCOPE_MATTERS),
        Table(["answered with", "penalty", "scope", "temperature", "new tokens at most"], rows, left=1),
    ]
    if sweep is not None:
        return [*blocks, *sweep_blocks(sweep)]
    no_sweep = "Not swept yet: python -m eval sweep RUN answers the same rows under each penalty and scope, and"
    return [*blocks, paragraph(f"{no_sweep} the comparison then stands here.")]


def _behaviour(results: Results) -> list[Block]:
    header = ["answers", "ended by itself", "cut at the limit", "failed", "empty", "context shortened"]
    rows = [[name, *map(str, dataclasses.astuple(counts))] for name, counts in results.answers.items()]
    scopes = results.rows.scopes()
    return [
        Heading(2, "Behaviour"),
        Table(header, rows, left=1),
        length_figure(results),
        behaviour_table(results, scopes, in_section("behaviour")),
        Heading(3, "Style, beside the references' own"),
        paragraph(
            "Shares far from the references' own are a symptom: a high penalty starves particles and punctuation."
        ),
        behaviour_table(results, [scope for scope in scopes if scope.is_group], in_section("style")),
        *_memorised(results),
    ]


def _memorised(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading(3, "Passages shared with training outputs")]
    rows = []
    for name, passages in results.overlap.items():
        for found in sorted(passages, key=lambda found: (-found.length, found.index)):
            passage = found.passage
            text = passage if len(passage) <= PASSAGE_SHOWN else f"{passage[:PASSAGE_SHOWN]}…"
            where = f"{found.index} · {found.category}"
            if found.length:
                rows.append([name, where, text, str(found.length), str(found.training_index)])
    if not rows:
        return [*blocks, paragraph("Not measured, or none found: it needs the outputs that were trained on.")]
    lead = "The longest passages, word for word, that the prompt does not hold."
    header = ["system", "row", "passage", "characters", "training row"]
    return [*blocks, paragraph(lead), Table(header, rows, left=3, sectioned=True)]


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _provenance(results: Results) -> list[Block]:
    settings = results.settings
    generation = settings.generation
    keys = sorted({key for found in generation.values() for key in found})
    rows = [[key, *(_setting(found.get(key, NOTHING)) for found in generation.values())] for key in keys]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return [
        Heading(2, "Provenance"),
        *_about(results),
        Table(["generation", *generation], rows, left=1),
        paragraph(
            f"Intervals: 95% percentile bootstrap, {settings.resamples:,} resamples of rows with one "
            f"context, seed {settings.seed}. Results schema {results.schema_version}."
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
        ["base model", f"{about.base} ({base[:12]})"],
        ["what was learned", about.learned[:12]],
        ["template", about.template[:12]],
        ["rows", f"{about.data or 'held out by the run'} ({about.rows[:12]})"],
        ["answers", (results.predictions or "")[:12]],
        ["as it was trained", "; ".join(about.deviations) or "yes"],
    ]
    return [Table(["whose answers", "(hashes: first 12 digits)"], rows, left=2)]


def _caveats(results: Results) -> list[Block]:
    rows = results.rows
    name, least = min(rows.categories.items(), key=lambda item: item[1])
    items = (
        f"{rows.total} rows in {rows.clusters} clusters of shared context; the smallest category is {name} with "
        f"{least}. An interval that holds 0 says that the rows cannot show a difference, not that there is none.",
        "p (Holm) is corrected for all categories and headline metrics together; the intervals are not.",
        "A score at its floor shows no understanding, however large it looks: read each beside its floor.",
        "Overlap is not correctness: a bag of characters cannot tell 17回 from 71回.",
        "On dolly-ja, exact match and gold contained are near zero for any system, because question, context and "
        "answer were translated separately.",
        "An answer that failed scores 0; an answer cut at the limit is scored as it stands.",
    )
    return [Heading(2, "Caveats"), Bullets(items)]
