"""Two systems over the same rows: paired differences with intervals and p values. No torch here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eval.metrics.rows import METRICS, row_scores
from eval.predictions import Prediction
from eval.scoring.tables import Scopes, by_scope, column, renumbered, rounded, scopes_of, table, weights_of
from eval.statistics.estimates import (
    Array,
    Clusters,
    binomial_p,
    cluster_numbers,
    contrast,
    holm,
    paired_difference,
    sign_flip_p,
)
from sft.data.records import CATEGORIES, Example
from sft.system.errors import UserError

HEADLINE = ("character_f1", "rouge_l", "gold_contained")
"""Metrics whose differences are tested as a family, over the categories and over the groups."""

BINARY = ("exact_match", "gold_contained")
"""0 or 1 a row: their p value is exact where no two rows share a context."""


def paired(
    predictions_a: Sequence[Prediction], predictions_b: Sequence[Prediction], resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """B − A, each one system's answers to the same rows: {categories, groups, interaction}.

    The first two hold NAME.METRIC.{mean, ci_low, ci_high, n, missing, p, p_holm, test}; see `differences` and
    `interaction`. Raises `UserError` when they do not answer the same rows.
    """
    first, second = (_by_index(answers) for answers in (predictions_a, predictions_b))
    check_same_rows(first, second)
    order = sorted(first, key=lambda index: row_order(first[index]))
    examples = [first[index].example for index in order]
    a, b = (table([row_scores(answers[index]) for index in order]) for answers in (first, second))
    clusters, scopes = cluster_numbers([example.input for example in examples]), scopes_of(examples)
    return {
        **differences(a, b, weights_of(examples), clusters, scopes, resamples, seed),
        "interaction": interaction(a, b, clusters, scopes, resamples, seed),
    }


def differences(
    a: Array, b: Array, weights: Array, clusters: Clusters, scopes: Scopes, resamples: int, seed: int
) -> dict[str, Any]:
    """{categories,groups} → scope → metric → B − A over the rows measured for both.

    `p` is two-sided: `test` says whether by sign flips over the clusters or, for 0/1 metrics of rows that share no
    context, exactly from the rows that changed. `p_holm` is p adjusted for all headline metrics over all categories
    (or over all groups); None for the other metrics.
    """

    def estimate(rows: list[int], local: Clusters) -> dict[str, dict[str, Any]]:
        found = paired_difference(a[rows], b[rows], weights[rows], local, resamples, seed)
        changes = b[rows] - a[rows]
        p_values = dict(zip(METRICS, sign_flip_p(changes, weights[rows], local, seed=seed), strict=True))
        exact = BINARY if len(set(local.tolist())) == len(rows) else ()
        p_values |= {metric: binomial_p(changes[:, column(metric)]) for metric in exact}
        return {
            metric: dataclasses.asdict(one)
            | {"p": p_values[metric], "p_holm": None, "test": "binomial" if metric in exact else "sign-flip"}
            for metric, one in zip(METRICS, found, strict=True)
        }

    estimates = by_scope(scopes, clusters, estimate)
    for named in estimates.values():
        tested = {(scope, m): e[m]["p"] for scope, e in named.items() for m in HEADLINE if e[m]["p"] is not None}
        for (scope, metric), adjusted in holm(tested).items():
            named[scope][metric]["p_holm"] = adjusted
    return {
        kind: {scope: {m: rounded(e) for m, e in by_metric.items()} for scope, by_metric in named.items()}
        for kind, named in estimates.items()
    }


def interaction(
    a: Array, b: Array, clusters: Clusters, scopes: Scopes, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Headline metric → (B − A on context rows) − (B − A on open rows) with its interval and p value.

    Empty unless both groups have rows.
    """
    groups = scopes["groups"]
    if not {"open", "context"} <= groups.keys():
        return {}
    changes = (b - a)[:, [column(metric) for metric in HEADLINE]]
    sides = [(changes[groups[name]], renumbered(clusters[groups[name]])) for name in ("context", "open")]
    found = {}
    for metric, one in zip(HEADLINE, contrast(*sides[0], *sides[1], resamples, seed), strict=True):
        values = dataclasses.asdict(one)
        n_context, n_open = values.pop("n_first"), values.pop("n_second")
        found[metric] = rounded({**values, "n_context": n_context, "n_open": n_open})
    return found


def row_order(prediction: Prediction) -> tuple[int, str]:
    """Report order of the rows: by category, then by index."""
    return CATEGORIES.index(prediction.example.category), prediction.example.index


def check_same_rows(
    first: Mapping[str, Prediction], second: Mapping[str, Prediction], names: tuple[str, str] | None = None
) -> None:
    """Raise `UserError` unless both hold the same rows: index, category, instruction, input and references.

    The message names the two (by default by their systems), and how many rows differ.
    """
    one, other = names or tuple(f"{next(iter(side.values())).system!r}" for side in (first, second))
    different = sorted(first.keys() ^ second.keys())
    if different:
        raise UserError(
            f"{one} ({len(first)} rows) and {other} ({len(second)} rows) answered different rows: "
            f"{len(different)} are in one only, for example {different[0]!r}; answer the same rows with both"
        )
    changed = sorted(index for index in first if _content(first[index].example) != _content(second[index].example))
    if changed:
        raise UserError(
            f"{len(changed)} of {len(first)} rows are not the same question in {one} and {other}, for example "
            f"{changed[0]!r}; answer the same data with both"
        )


def _content(example: Example) -> tuple[str, ...]:
    return (example.category, example.instruction, example.input, *example.references)


def _by_index(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for prediction in predictions:
        index = prediction.example.index
        if index in found:
            raise UserError(f"row {index!r} appears twice; compare one system's answers with another's")
        found[index] = prediction
    if not found:
        raise UserError("there are no predictions to compare; answer some rows first")
    return found
