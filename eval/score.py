"""From predictions to results: every metric by row, category and group, floors, paired differences. No torch.

A category's or group's score is the mean over all of its rows (a group's is not the mean of its
categories). Answers that failed stay in it, with 0 in every text metric.
"""

import dataclasses
import json
import platform
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import METRICS, TEXT_METRICS, RowScores, row_scores, signatures, text_scores
from eval.statistics import (
    CONFIDENCE,
    Array,
    Clusters,
    Estimate,
    bootstrap_means,
    cluster_numbers,
    paired_difference,
)
from sft.errors import UserError
from sft.records import CATEGORIES, GROUPS, Example, Prediction

SCHEMA_VERSION = 1
BASE, TUNED = "base", "tuned"
_DIGITS = 6

Scopes = dict[str, dict[str, list[int]]]


def score(predictions: Sequence[Prediction], resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Results of every system over the same rows; identical predictions in any order give identical results.

    `systems` and `floors` hold NAME.{categories,groups}.NAME.METRIC.{mean,ci_low,ci_high,n,missing}, and
    `deltas` the same of tuned − base, paired (empty unless both are there). `samples` has the scores of
    every row of every system. `n` counts the rows in the mean, `missing` those that lack the metric's input.

    Floors are what needs no understanding: `echo` answers with the question, `shuffled` with the reference
    of another row of the category. Raises `UserError` when the predictions do not belong together.
    """
    by_system = _by_system(predictions)
    examples = [prediction.example for prediction in next(iter(by_system.values()))]
    rows = {name: [row_scores(answer) for answer in answers] for name, answers in by_system.items()}
    floors = _floors(examples, seed)
    clusters = cluster_numbers([example.input for example in examples])
    scopes = _scopes(examples)
    tables = {name: _table(scores) for name, scores in (rows | floors).items()}
    weights = _weights(examples)
    estimates = _means(tables, weights, clusters, scopes, resamples, seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": _settings(by_system) | {"bootstrap": _bootstrap(resamples, seed)},
        "rows": _row_counts(scopes, clusters),
        "answers": {name: _answer_counts(answers) for name, answers in by_system.items()},
        "systems": {name: estimates[name] for name in by_system},
        "floors": {name: _text_metrics_only(estimates[name]) for name in floors},
        "deltas": _deltas(tables, weights, clusters, scopes, resamples, seed),
        "metrics": signatures(),
        "versions": _versions(),
        "samples": _samples(by_system, rows, clusters),
    }


def write_results(results: Mapping[str, Any], directory: Path) -> None:
    """Write `results.json` (all but the samples) and `samples.jsonl` (a row of a system a line), UTF-8."""
    summary = {key: value for key, value in results.items() if key != "samples"}
    text = json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in results["samples"])
    for name, content in (("results.json", text), ("samples.jsonl", "".join(lines))):
        # A lone surrogate in somebody's row index is written as the JSON escape it came from.
        (directory / name).write_text(content, encoding="utf-8", errors="backslashreplace")


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
        _check_same_rows(names[0], found[names[0]], other, found[other])

    def row_order(answer: Prediction) -> tuple[int, str]:
        return CATEGORIES.index(answer.example.category), answer.example.index

    return {name: sorted(found[name].values(), key=row_order) for name in names}


def _check_same_rows(
    first: str, answers: Mapping[str, Prediction], second: str, others: Mapping[str, Prediction]
) -> None:
    different = sorted(answers.keys() ^ others.keys())
    if different:
        raise UserError(
            f"systems {first!r} ({len(answers)} rows) and {second!r} ({len(others)} rows) answered "
            f"different rows: {len(different)} are in one only, for example {different[0]!r}; "
            "answer the same rows with both"
        )
    for index, answer in answers.items():
        if answer.example != others[index].example:
            raise UserError(
                f"row {index!r} is not the same question in {first!r} and {second!r}; answer the same data with both"
            )


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


def _bootstrap(resamples: int, seed: int) -> dict[str, Any]:
    return {
        "resamples": resamples,
        "seed": seed,
        "confidence": CONFIDENCE,
        "clusters": "rows with one context",
    }


def _floors(examples: Sequence[Example], seed: int) -> dict[str, list[RowScores]]:
    nothing: RowScores = dict.fromkeys(METRICS)
    echo = [nothing | text_scores(example.instruction, example.references) for example in examples]
    others = _other_rows(examples, seed)
    shuffled = [
        nothing if other is None else nothing | text_scores(examples[other].references[0], example.references)
        for example, other in zip(examples, others, strict=True)
    ]
    return {"echo": echo, "shuffled": shuffled}


def _other_rows(examples: Sequence[Example], seed: int) -> list[int | None]:
    """For each row another row of its category, each used once; None for the only row of a category."""
    others: list[int | None] = [None] * len(examples)
    for rows in _scopes(examples)["categories"].values():
        order = list(rows)
        random.Random(seed).shuffle(order)
        if len(order) > 1:
            # One cycle through the shuffled rows: no row can meet its own reference.
            for row, other in zip(order, order[1:] + order[:1], strict=True):
                others[row] = other
    return others


def _scopes(examples: Sequence[Example]) -> Scopes:
    """Row numbers of every category and group that has rows, in report order."""
    categories = {c: [i for i, e in enumerate(examples) if e.category == c] for c in CATEGORIES}
    groups = {g: [row for c in members for row in categories[c]] for g, members in GROUPS.items()}
    return {
        "categories": {name: rows for name, rows in categories.items() if rows},
        "groups": {name: rows for name, rows in groups.items() if rows},
    }


def _table(scores: Sequence[RowScores]) -> Array:
    """(rows, metrics), NaN where not measured."""
    return np.array([[np.nan if (x := row[m]) is None else x for m in METRICS] for row in scores], dtype=float)


def _weights(examples: Sequence[Example]) -> Array:
    """(rows, metrics): 1, but the reference's characters for what is a ratio of characters.

    Unweighted, a handful of two-character references would decide the mean of such a ratio.
    """
    weights = np.ones((len(examples), len(METRICS)))
    weights[:, METRICS.index("reference_bits_per_character")] = [len(e.output) for e in examples]
    weights[:, METRICS.index("length_ratio")] = [len(e.output.strip()) for e in examples]
    return weights


def _by_scope(
    scopes: Scopes, clusters: Clusters, estimate: Callable[[list[int], Clusters], Sequence[Estimate]]
) -> dict[str, dict[str, Sequence[Estimate]]]:
    """`estimate`, given row numbers and their clusters, for every category and group."""
    return {
        kind: {scope: estimate(rows, _renumbered(clusters[rows])) for scope, rows in named.items()}
        for kind, named in scopes.items()
    }


def _means(
    tables: Mapping[str, Array], weights: Array, clusters: Clusters, scopes: Scopes, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Table's name → {categories,groups} → scope → metric → estimate."""
    values, repeated = np.hstack(list(tables.values())), np.hstack([weights] * len(tables))

    def estimate(rows: list[int], local: Clusters) -> Sequence[Estimate]:
        return bootstrap_means(values[rows], repeated[rows], local, resamples, seed)

    estimates, width = _by_scope(scopes, clusters, estimate), len(METRICS)
    return {
        name: {
            kind: {scope: _by_metric(found[at * width : (at + 1) * width]) for scope, found in named.items()}
            for kind, named in estimates.items()
        }
        for at, name in enumerate(tables)
    }


def _deltas(
    tables: Mapping[str, Array], weights: Array, clusters: Clusters, scopes: Scopes, resamples: int, seed: int
) -> dict[str, Any]:
    if BASE not in tables or TUNED not in tables:
        return {}
    base, tuned = tables[BASE], tables[TUNED]

    def estimate(rows: list[int], local: Clusters) -> Sequence[Estimate]:
        return paired_difference(base[rows], tuned[rows], weights[rows], local, resamples, seed)

    estimates = _by_scope(scopes, clusters, estimate)
    return {kind: {s: _by_metric(found) for s, found in named.items()} for kind, named in estimates.items()}


def _renumbered(clusters: Clusters) -> Clusters:
    return np.unique(clusters, return_inverse=True)[1]


def _by_metric(estimates: Sequence[Estimate]) -> dict[str, dict[str, Any]]:
    return {
        metric: {key: _rounded(value) for key, value in dataclasses.asdict(estimate).items()}
        for metric, estimate in zip(METRICS, estimates, strict=True)
    }


def _text_metrics_only(estimates: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: {scope: {m: by_metric[m] for m in TEXT_METRICS} for scope, by_metric in scopes.items()}
        for kind, scopes in estimates.items()
    }


def _rounded(value: float | None) -> float | int | None:
    # Adding 0.0 turns -0.0 into 0.0.
    return round(value, _DIGITS) + 0.0 if isinstance(value, float) else value


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
    packages = ("fugashi", "unidic-lite", "rapidfuzz", "numpy")
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
            "scores": {metric: _rounded(value) for metric, value in scores.items()},
        }
        for name, answers in by_system.items()
        for answer, scores, cluster in zip(answers, rows[name], clusters, strict=True)
    ]
