"""Scores as arrays of (rows, metrics), and estimates of them by category and group. No torch here.

A category's or group's score is the mean over all of its rows (a group's is not the mean of its categories).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.metrics.reference import RowScores
from eval.metrics.rows import METRICS, WEIGHTED
from eval.statistics.estimates import Array, Clusters, bootstrap_means
from sft.data.records import CATEGORIES, GROUPS, Example

_DIGITS = 6

Scopes = dict[str, dict[str, list[int]]]
"""categories or groups → name → row numbers."""


def scopes_of(examples: Sequence[Example]) -> Scopes:
    """Row numbers of every category and group that has rows, in report order."""
    categories = {c: [i for i, e in enumerate(examples) if e.category == c] for c in CATEGORIES}
    groups = {g: [row for c in members for row in categories[c]] for g, members in GROUPS.items()}
    return {
        "categories": {name: rows for name, rows in categories.items() if rows},
        "groups": {name: rows for name, rows in groups.items() if rows},
    }


def table(scores: Sequence[RowScores]) -> Array:
    """(rows, METRICS), NaN where not measured."""
    values = [[np.nan if (value := row.get(m)) is None else value for m in METRICS] for row in scores]
    return np.array(values, dtype=float).reshape(len(scores), len(METRICS))


def weights_of(examples: Sequence[Example]) -> Array:
    """(rows, METRICS): 1, but the reference's characters for what is a ratio to them."""
    weights = np.ones((len(examples), len(METRICS)))
    for metric in WEIGHTED:
        strip = metric == "length_ratio"
        weights[:, METRICS.index(metric)] = [len(e.output.strip() if strip else e.output) for e in examples]
    return weights


def column(metric: str) -> int:
    """Where a metric stands in a table."""
    return METRICS.index(metric)


def by_scope(
    scopes: Scopes, clusters: Clusters, estimate: Callable[[list[int], Clusters], Any]
) -> dict[str, dict[str, Any]]:
    """`estimate`, given row numbers and their clusters counted from 0, for every category and group."""
    return {
        kind: {name: estimate(rows, renumbered(clusters[rows])) for name, rows in named.items()}
        for kind, named in scopes.items()
    }


def renumbered(clusters: Clusters) -> Clusters:
    """The same clusters, counted from 0 without gaps."""
    return np.unique(clusters, return_inverse=True)[1]


def mean_tables(
    tables: Mapping[str, Array],
    metrics: Mapping[str, Sequence[str]],
    weights: Array,
    clusters: Clusters,
    scopes: Scopes,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Table's name → {categories,groups} → scope → metric → {mean, ci_low, ci_high, n, missing}.

    `metrics` names those wanted of each table. All are drawn together, so that they share their resamples.
    """
    wanted = [(name, metric) for name in tables for metric in metrics[name]]
    values = np.stack([tables[name][:, column(metric)] for name, metric in wanted], axis=1)
    repeated = weights[:, [column(metric) for _, metric in wanted]]

    def estimate(rows: list[int], local: Clusters) -> dict[tuple[str, str], dict[str, Any]]:
        found = bootstrap_means(values[rows], repeated[rows], local, resamples, seed)
        return {key: rounded(dataclasses.asdict(one)) for key, one in zip(wanted, found, strict=True)}

    estimates = by_scope(scopes, clusters, estimate)
    return {
        name: {
            kind: {scope: {m: found[name, m] for m in metrics[name]} for scope, found in named.items()}
            for kind, named in estimates.items()
        }
        for name in tables
    }


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers to six digits, so that results do not differ by the order of additions."""
    # Adding 0.0 turns -0.0 into 0.0.
    return {key: round(v, _DIGITS) + 0.0 if isinstance(v, float) else v for key, v in values.items()}
