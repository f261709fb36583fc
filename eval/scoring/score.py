"""From predictions to results: every metric by row, category and group, between floors and ceiling. No torch here.

Answers that failed stay in every mean, with 0 in every text metric; rows that lack a metric's input are counted.
"""

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.floors import CEILINGS, CONSTANT, CONTEXT_ONLY, FLOORS, ORACLE, Answers
from eval.metrics.memorised import Overlap, longest_overlaps
from eval.metrics.reference import TEXT_METRICS, RowScores, text_scores
from eval.metrics.rows import METRICS, REFERENCE_METRICS, own_scores, row_scores, signatures
from eval.predictions import Prediction
from eval.scoring.paired import HEADLINE, check_same_rows, differences, interaction, row_order
from eval.scoring.tables import Scopes, column, mean_tables, renumbered, rounded, scopes_of, table, weights_of
from eval.statistics.estimates import CONFIDENCE, Array, Clusters, band_position, cluster_numbers
from sft.data.records import CONTEXT, Example
from sft.system.errors import UserError
from sft.system.files import write_whole

SCHEMA_VERSION = 2
BASE, TUNED = "base", "tuned"
NORMALISED = ("character_f1", "rouge_l")
LONGEST_OVERLAPS = 5
_REFERENCE = "reference"


def score(
    predictions: Sequence[Prediction],
    resamples: int = 10_000,
    seed: int = 0,
    training_outputs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Results of every system over the same rows; identical predictions in any order give identical results.

    `training_outputs` (index → text) are what the answers are searched for; without them, the overlaps that the
    predictions hold count. Raises `UserError` when the predictions do not belong together.
    The result's keys are described in docs/evaluation.md.
    """
    by_system = _by_system(predictions)
    settings = _settings(by_system)
    overlaps = {} if training_outputs is None else _overlaps(by_system, training_outputs)
    by_system = {name: _with_overlaps(answers, overlaps.get(name)) for name, answers in by_system.items()}
    examples = [prediction.example for prediction in next(iter(by_system.values()))]
    clusters, scopes, weights = cluster_numbers([e.input for e in examples]), scopes_of(examples), weights_of(examples)
    rows = {name: [row_scores(answer) for answer in answers] for name, answers in by_system.items()}
    systems = {name: table(scores) for name, scores in rows.items()}
    floors = {name: text_table(floor(examples, seed), examples) for name, floor in FLOORS.items()}
    ceilings = {name: text_table(ceiling(examples, seed), examples) for name, ceiling in CEILINGS.items()}
    reference = table([own_scores(example.output, example) for example in examples])

    # A system may be called like a floor, so the tables are told apart by their kind, too.
    tables = {f"system {name}": values for name, values in systems.items()}
    tables |= {f"floor {name}": values for name, values in (floors | ceilings).items()} | {_REFERENCE: reference}
    wanted = {name: METRICS if name.startswith("system ") else tuple(TEXT_METRICS) for name in tables}
    wanted[_REFERENCE] = REFERENCE_METRICS
    means = mean_tables(tables, wanted, weights, clusters, scopes, resamples, seed)
    floor_means = {name: _its_scopes(name, means[f"floor {name}"]) for name in floors | ceilings}
    pair = (systems[BASE], systems[TUNED]) if {BASE, TUNED} <= systems.keys() else None
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": settings
        | {
            "resamples": resamples,
            "seed": seed,
            "confidence": CONFIDENCE,
            "clusters": "rows with one context",
            "headline_metrics": list(HEADLINE),
            "constant": CONSTANT,
        },
        "rows": _row_counts(scopes, clusters),
        "answers": {name: _answer_counts(answers) for name, answers in by_system.items()},
        "systems": {name: means[f"system {name}"] for name in systems},
        "floors": {name: floor_means[name] for name in floors},
        "ceilings": {name: floor_means[name] for name in ceilings},
        "reference": means[_REFERENCE],
        "normalised": {
            name: {"groups": normalised(values, floors, ceilings[ORACLE], clusters, scopes, resamples, seed)}
            for name, values in systems.items()
        },
        "deltas": differences(*pair, weights, clusters, scopes, resamples, seed) if pair else {},
        "interaction": interaction(*pair, clusters, scopes, resamples, seed) if pair else {},
        "overlap": {name: _longest(found, examples) for name, found in overlaps.items()},
        "signatures": signatures(),
        "versions": _versions(),
        "samples": _samples(by_system, rows, clusters),
    }


def write_results(results: Mapping[str, Any], directory: Path) -> None:
    """Write `results.json` (all but the samples) and `samples.jsonl` (a row of a system a line)."""
    summary = {key: value for key, value in results.items() if key != "samples"}
    text = json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in results["samples"])
    for name, content in (("results.json", text), ("samples.jsonl", "".join(lines))):
        write_whole(directory / name, content)


def _by_system(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """System → its answers in one order of rows, checked; base and tuned come first."""
    if not predictions:
        raise UserError("there are no predictions to score; answer some rows first")
    found: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        answers = found.setdefault(prediction.system, {})
        index = prediction.example.index
        if index in answers:
            raise UserError(f"row {index!r} of system {prediction.system!r} appears twice; keep one of the answers")
        answers[index] = prediction
    names = sorted(found, key=lambda name: (name != BASE, name != TUNED, name))
    for other in names[1:]:
        check_same_rows(found[names[0]], found[other], (f"system {names[0]!r}", f"system {other!r}"))
    return {name: sorted(found[name].values(), key=row_order) for name in names}


def _settings(by_system: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    generation = {}
    for name, answers in by_system.items():
        for answer in answers:
            if answer.generation != answers[0].generation:
                keys = answer.generation.keys() | answers[0].generation.keys()
                differing = min(k for k in keys if answer.generation.get(k) != answers[0].generation.get(k))
                raise UserError(
                    f"system {name!r} mixes generation settings: {differing} is "
                    f"{answers[0].generation.get(differing)!r} for row {answers[0].example.index!r} and "
                    f"{answer.generation.get(differing)!r} for row {answer.example.index!r}; "
                    "score them as two systems"
                )
        generation[name] = dict(sorted(answers[0].generation.items()))
    return {"generation": generation}


def _overlaps(
    by_system: Mapping[str, Sequence[Prediction]], training_outputs: Mapping[str, str]
) -> dict[str, list[Overlap]]:
    """System → the longest overlap of each answer. The row's own texts count as its prompt, shown whole or not."""
    answers = [answer for answers in by_system.values() for answer in answers]
    found = iter(
        longest_overlaps(
            ["" if a.finish_reason == "error" else a.text for a in answers],
            ["\n".join((a.prompt, a.example.instruction, a.example.input)) for a in answers],
            training_outputs,
        )
    )
    return {name: [next(found) for _ in answers] for name, answers in by_system.items()}


def _with_overlaps(answers: Sequence[Prediction], overlaps: Sequence[Overlap] | None) -> list[Prediction]:
    if overlaps is None:
        return list(answers)
    return [
        dataclasses.replace(answer, training_overlap=overlap.length)
        for answer, overlap in zip(answers, overlaps, strict=True)
    ]


def _longest(overlaps: Sequence[Overlap], examples: Sequence[Example]) -> list[dict[str, Any]]:
    pairs = sorted(zip(overlaps, examples, strict=True), key=lambda pair: -pair[0].length)[:LONGEST_OVERLAPS]
    return [{"index": example.index, "category": example.category, **overlap._asdict()} for overlap, example in pairs]


def text_table(answers: Answers, examples: Sequence[Example]) -> Array:
    """(rows, METRICS) with the text metrics of a floor or ceiling, NaN for rows it has no answer to."""
    rows: list[RowScores] = [
        {} if answer is None else text_scores(answer, example.references)
        for answer, example in zip(answers, examples, strict=True)
    ]
    return table(rows)


def _its_scopes(name: str, means: Mapping[str, Any]) -> dict[str, Any]:
    """The scopes in which a floor or ceiling has answers."""
    if name not in CONTEXT_ONLY:
        return dict(means)
    names = {"categories": CONTEXT, "groups": ("context",)}
    return {kind: {s: found for s, found in named.items() if s in names[kind]} for kind, named in means.items()}


def normalised(
    system: Array,
    floors: Mapping[str, Array],
    oracle: Array,
    clusters: Clusters,
    scopes: Scopes,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Group → metric → position of the score between the best floor (0) and the ceiling (1).

    The ceiling is the oracle sentence where the group has contexts, and a perfect score elsewhere. The best floor
    is the one with the highest mean over the rows that it and the ceiling answer, kept for all resamples.
    """
    found: dict[str, dict[str, Any]] = {}
    for group, rows in scopes["groups"].items():
        found[group] = {}
        local = renumbered(clusters[rows])
        for metric in NORMALISED:
            at = column(metric)
            ceiling, ceiling_name = oracle[rows, at], ORACLE
            if np.isnan(ceiling).all():
                ceiling, ceiling_name = np.ones(len(rows)), "perfect"
            known = {name: np.where(np.isnan(ceiling), np.nan, values[rows, at]) for name, values in floors.items()}
            known = {name: values for name, values in known.items() if not np.isnan(values).all()}
            best = max(known, key=lambda name: np.nanmean(known[name]))
            position = band_position(system[rows, at], known[best], ceiling, local, resamples, seed)
            used = ~np.isnan(known[best])
            ends = {"floor": float(known[best][used].mean()), "ceiling": float(ceiling[used].mean())}
            names = {"floor_name": best, "ceiling_name": ceiling_name}
            found[group][metric] = rounded(dataclasses.asdict(position) | ends | names)
    return found


def _row_counts(scopes: Scopes, clusters: Clusters) -> dict[str, Any]:
    counts = {kind: {name: len(rows) for name, rows in named.items()} for kind, named in scopes.items()}
    return {"total": len(clusters), "clusters": len(np.unique(clusters)), **counts}


def _answer_counts(answers: Sequence[Prediction]) -> dict[str, int]:
    """How many answers ended which way, are empty, or had their context shortened."""
    reasons = Counter(answer.finish_reason for answer in answers)
    return {
        "eos": reasons["eos"],
        "length": reasons["length"],
        "error": reasons["error"],
        "empty": sum(not answer.text.strip() for answer in answers),
        "context_shortened": sum(answer.context_shortened for answer in answers),
    }


def _versions() -> dict[str, str]:
    packages = ("fugashi", "unidic-lite", "rapidfuzz", "sacrebleu", "numpy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _samples(
    by_system: Mapping[str, Sequence[Prediction]],
    rows: Mapping[str, Sequence[RowScores]],
    clusters: Clusters,
) -> list[dict[str, Any]]:
    return [
        {
            "system": name,
            "index": answer.example.index,
            "category": answer.example.category,
            "cluster": int(cluster),
            "finish_reason": answer.finish_reason,
            "scores": rounded(scores),
        }
        for name, answers in by_system.items()
        for answer, scores, cluster in zip(answers, rows[name], clusters, strict=True)
    ]
