"""The report of one scored run, as blocks in the order a reader decides in. No torch here."""

import json
from collections.abc import Sequence
from typing import Any

from eval.predictions import Prediction
from eval.render.blocks import Block, Bullets, Heading, Strong, Table, paragraph
from eval.render.html import render_html
from eval.render.markdown import render_markdown
from eval.report.figures import copy_figure, delta_figure, forest_figure, length_figure
from eval.report.samples import sample_blocks
from eval.report.score_tables import behaviour_table, score_table
from eval.report.sweep import sweep_blocks
from eval.report.view import (
    BEHAVIOUR_METRICS,
    CORRECTNESS_METRICS,
    DECODING_FREE_METRICS,
    GROUNDING_METRICS,
    HEADLINE,
    NOTHING,
    OVERLAP_METRICS,
    TITLES,
    Results,
    Scope,
    all_scopes,
    estimate,
    measured,
    name_of,
    p_value,
    scopes_of,
    seed_of,
    verdict,
    with_interval,
)
from sft.config.repetition_penalty import PENALTY, SCOPE, SCOPE_MATTERS

LEGEND = (
    "Mean [95% interval] over the rows of each category; a group is the mean over all of its rows. The best floor is "
    "the highest of what needs no understanding: the question echoed, another row's reference, one constant text, the "
    "lead of the context. The oracle is the best single sentence of the context. Normalised: 0 is the best floor, 1 "
    "the oracle."
)
QUOTED, PASSAGE_SHOWN = 5, 300


def markdown(results: Results, predictions: Sequence[Prediction], sweep: Results | None = None) -> str:
    """The report as Markdown; figures are in the HTML only."""
    return render_markdown(document(results, predictions, sweep))


def html(results: Results, predictions: Sequence[Prediction], sweep: Results | None = None) -> str:
    """The report as one self-contained HTML file."""
    return render_html(document(results, predictions, sweep))


def document(results: Results, predictions: Sequence[Prediction], sweep: Results | None = None) -> list[Block]:
    """The whole report. `results` is what `score` returned for these predictions, `sweep` what a sweep of them gave."""
    blocks: list[Block] = [Heading(1, "Evaluation by task category"), *_verdicts(results), paragraph(LEGEND)]
    blocks += [forest_figure(results), *delta_figure(results)]
    blocks += [*_group(results, "open"), *_context(results), *_group(results, "other")]
    blocks += [*_penalty(results, sweep), *_behaviour(results)]
    blocks += [Heading(2, "Samples"), *sample_blocks(results, predictions)]
    return [*blocks, *_provenance(results), *_caveats(results)]


def _verdicts(results: Results) -> list[Block]:
    lines: list[Block] = [verdict(results, group) for group in ("open", "context")]
    context = Scope("groups", "context")
    if measured(results, [context], ["facts_recall"]):
        lines.append(verdict(results, "context", "facts_recall"))
    interaction = estimate({"groups": {"all": results.get("interaction", {})}}, Scope("groups", "all"), HEADLINE)
    if interaction["mean"] is not None:
        change = f": the difference on context minus that on open is {with_interval(interaction, signed=True)}"
        p = f" in {name_of(HEADLINE)} (p = {p_value(interaction['p'])}).".replace("= <", "< ")
        lines.append(paragraph(Strong("Context against open"), change + p))
    return lines


def _group(results: Results, group: str) -> list[Block]:
    scopes = scopes_of(results, group)
    if not scopes:
        return []
    metrics = (*OVERLAP_METRICS, *CORRECTNESS_METRICS[:3], "reference_bits_per_character")
    return [Heading(2, TITLES[group]), score_table(results, scopes, metrics)]


def _context(results: Results) -> list[Block]:
    scopes = scopes_of(results, "context")
    if not scopes:
        return []
    blocks: list[Block] = [Heading(2, TITLES["context"])]
    blocks += [Heading(3, "Overlap with the reference"), score_table(results, scopes, OVERLAP_METRICS)]
    if measured(results, scopes, CORRECTNESS_METRICS):
        blocks += [
            Heading(3, "Correctness"),
            paragraph(
                "Facts are numbers, dates, names and katakana words: those of the reference that the answer states. "
                "Overlap cannot tell 17回 from 2019年."
            ),
            score_table(results, scopes, CORRECTNESS_METRICS),
        ]
    if measured(results, scopes, GROUNDING_METRICS):
        blocks += [
            Heading(3, "Grounding, beside the references' own"),
            paragraph(
                "Neither high nor low is good by itself: an answer should take from the context about as much as the "
                "reference does. Unsupported: facts of the answer that neither context nor question states."
            ),
            behaviour_table(results, scopes, GROUNDING_METRICS),
        ]
    if measured(results, scopes, DECODING_FREE_METRICS):
        blocks += [
            Heading(3, "Free of decoding"),
            paragraph(
                "No text is generated here, so no decoding setting can change it. The gain is what the context takes "
                "off the model's surprise at the reference: near 0 the model does not use the context."
            ),
            score_table(results, scopes, DECODING_FREE_METRICS),
        ]
    return [*blocks, *copy_figure(results)]


def _penalty(results: Results, sweep: Results | None) -> list[Block]:
    generation = results["settings"]["generation"]
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
    answers = results["answers"]
    keys = ("eos", "length", "error", "empty", "context_shortened")
    header = ["answers", "ended by itself", "cut at the limit", "failed", "empty", "context shortened"]
    rows = [[name, *(str(counts.get(key, NOTHING)) for key in keys)] for name, counts in answers.items()]
    blocks: list[Block] = [Heading(2, "Behaviour"), Table(header, rows, left=1), length_figure(results)]
    groups = [scope for scope in all_scopes(results) if scope.kind == "groups"]
    blocks += [
        behaviour_table(results, all_scopes(results), BEHAVIOUR_METRICS[:2]),
        Heading(3, "Style, beside the references' own"),
        paragraph(
            "Shares far from the references' own are a symptom: a high penalty starves particles and punctuation."
        ),
        behaviour_table(results, groups, BEHAVIOUR_METRICS[2:]),
    ]
    return [*blocks, *_memorised(results)]


def _memorised(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading(3, "Passages shared with training outputs")]
    every = {name: [p for p in passages if p["length"]] for name, passages in results.get("overlap", {}).items()}
    overlap = {name: passages for name, passages in every.items() if passages}
    if not overlap:
        return [*blocks, paragraph("Not measured, or none found: it needs the outputs that were trained on.")]
    rows = []
    for name, passages in overlap.items():
        longest = sorted(passages, key=lambda found: (-found["length"], str(found["index"])))[:QUOTED]
        for found in longest:
            passage = found["passage"]
            text = passage if len(passage) <= PASSAGE_SHOWN else f"{passage[:PASSAGE_SHOWN]}…"
            where = f"{found['index']} · {found['category']}"
            rows.append([name, where, text, str(found["length"]), str(found.get("training_index", NOTHING))])
    lead = "The longest passages, word for word, that the prompt does not hold."
    header = ["system", "row", "passage", "characters", "training row"]
    return [*blocks, paragraph(lead), Table(header, rows, left=3, sectioned=True)]


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _provenance(results: Results) -> list[Block]:
    settings = results["settings"]
    generation = settings["generation"]
    keys = sorted({key for found in generation.values() for key in found})
    rows = [[key, *(_setting(found.get(key, NOTHING)) for found in generation.values())] for key in keys]
    resamples, signatures = settings.get("resamples", 0), results.get("signatures", {})
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return [
        Heading(2, "Provenance"),
        Table(["generation", *generation], rows, left=1),
        paragraph(
            f"Intervals: 95% percentile bootstrap, {resamples:,} resamples of rows with one context, seed "
            f"{seed_of(results)}. Results schema {results['schema_version']}."
        ),
        Table(["metric", "signature"], [[m, signature] for m, signature in signatures.items()], left=2),
        paragraph(f"Versions: {versions}."),
    ]


def _caveats(results: Results) -> list[Block]:
    rows = results["rows"]
    name, least = min(rows["categories"].items(), key=lambda item: item[1])
    items = (
        f"{rows['total']} rows in {rows['clusters']} clusters of shared context; the smallest category is {name} with "
        f"{least}. An interval that holds 0 says that the rows cannot show a difference, not that there is none.",
        "p (Holm) is corrected for all categories and headline metrics together; the intervals are not.",
        "A score at its floor shows no understanding, however large it looks: read each beside its floor.",
        "Overlap is not correctness: a bag of characters cannot tell 17回 from 71回.",
        "On dolly-ja, exact match and gold contained are near zero for any system, because question, context and "
        "answer were translated separately.",
        "An answer that failed scores 0; an answer cut at the limit is scored as it stands.",
    )
    return [Heading(2, "Caveats"), Bullets(items)]
