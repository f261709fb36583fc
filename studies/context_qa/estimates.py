"""Estimates from the study's scores: means, paired effects between cells, ratios. No torch here.

A training arm's score of a row is the mean over its seeds; rows, and with them contexts, are what is resampled.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.metrics.catalogue import BY_KEY
from eval.scoring.means import position_of
from eval.scoring.results import Kind
from eval.scoring.rows import column, rounded, rounded_number
from eval.statistics.estimates import (
    Array,
    Clusters,
    Interval,
    band_position,
    bootstrap_means,
    paired_difference,
    sign_flip_p,
)
from studies.context_qa.answers import SEED, Answers, Material
from studies.context_qa.plan import RowsName

Found = dict[str, Any] | None
"""An estimate with its keys, or None where something that it needs was not run."""


class Outcome(NamedTuple):
    """A metric of a category or group of a set of rows."""

    rows: RowsName
    kind: Kind
    scope: str
    metric: str

    @property
    def key(self) -> str:
        """`dolly.context.character_f1`."""
        return f"{self.rows}.{self.scope}.{self.metric}"


def members(material: Material, outcome: Outcome) -> list[int] | None:
    """Row numbers of the outcome's category or group; None when no such row was answered."""
    rows = material.rows.get(outcome.rows)
    found = rows.scopes if rows else {}
    return next((at for scope, at in found.items() if (scope.kind, scope.name) == (outcome.kind, outcome.scope)), None)


def score_of(material: Material, outcome: Outcome, arm: str, decoding: str) -> Found:
    """The mean of a cell with its interval, and the mean of each seed."""
    return effect(material, outcome, [(1.0, arm, decoding)], tested=False)


def effect(material: Material, outcome: Outcome, terms: Sequence[tuple[float, str, str]], tested: bool = True) -> Found:
    """Σ coefficient × (arm, decoding), row by row: a paired contrast between cells over the same rows.

    {mean, ci_low, ci_high, n, missing, by_seed, p}; p is by sign flips over contexts, None unless `tested`.
    """
    at = members(material, outcome)
    parts = [(factor, material.answers.get((arm, outcome.rows, decoding))) for factor, arm, decoding in terms]
    known = [(factor, answers) for factor, answers in parts if answers is not None]
    if at is None or len(known) < len(parts):
        return None
    metric, rows = column(outcome.metric), material.rows[outcome.rows]
    weights, clusters = rows.weights[at, metric][:, None], rows.clusters[at]
    plus, minus = (
        sum((abs(f) * a.mean[at, metric][:, None] for f, a in known if f * sign > 0), np.zeros((len(at), 1)))
        for sign in (1, -1)
    )
    if any(factor < 0 for factor, _ in known):
        found = paired_difference(minus, plus, weights, clusters, rows.resamples, SEED)[0]
    else:
        found = bootstrap_means(plus, weights, clusters, rows.resamples, SEED)[0]
    p_value = sign_flip_p(plus - minus, weights, clusters, seed=SEED)[0] if tested else None
    p_value = p_value if p_value is None else rounded_number(p_value)
    return dataclasses.asdict(rounded(found)) | {"p": p_value, "by_seed": _by_seed(known, at, metric, weights)}


def _by_seed(
    known: Sequence[tuple[float, Answers]], at: Sequence[int], metric: int, weights: Array
) -> list[float | None]:
    """The value of each seed; the base model, which has none, is the same in all. Empty with a single seed."""
    seeds = max(len(answers.tables) for _, answers in known)
    found: list[float | None] = []
    for seed in range(seeds if seeds > 1 else 0):
        tables = [(factor, answers.tables[min(seed, len(answers.tables) - 1)]) for factor, answers in known]
        values = sum((factor * values[at, metric] for factor, values in tables), np.zeros(len(at)))
        used = ~np.isnan(values)
        found.append(round(float(np.average(values[used], weights=weights[used, 0])), 6) if used.any() else None)
    return found


def ratio(material: Material, outcome: Outcome, top: tuple[str, str], bottom: tuple[str, str]) -> Found:
    """Mean of one cell / mean of another, with its interval; resamples whose divisor is 0 stay out."""
    at = members(material, outcome)
    parts = [material.answers.get((arm, outcome.rows, decoding)) for arm, decoding in (top, bottom)]
    known = [answers for answers in parts if answers is not None]
    if at is None or len(known) < 2:
        return None
    above, below = (answers.mean[at, column(outcome.metric)] for answers in known)
    rows = material.rows[outcome.rows]
    # With 0 as the floor and the divisor as the ceiling, the position in between is the ratio of the means.
    found = band_position(above, np.zeros(len(at)), below, rows.clusters[at], rows.resamples, SEED)
    return dataclasses.asdict(rounded(found))


def position(material: Material, outcome: Outcome, arm: str, decoding: str) -> Found:
    """Where a cell's score lies between the best floor (0) and the oracle sentence (1)."""
    at, answers = members(material, outcome), material.answers.get((arm, outcome.rows, decoding))
    if at is None or answers is None:
        return None
    rows = material.rows[outcome.rows]
    return dataclasses.asdict(position_of(rows, at, BY_KEY[outcome.metric], answers.mean, rows.limits))


def limits(material: Material, outcome: Outcome) -> dict[str, float | None]:
    """Mean of each floor and of the oracle over the outcome's rows that they answer; None where they answer none."""
    at = members(material, outcome)
    if at is None:
        return {}
    limit_tables = material.rows[outcome.rows].limits
    return {name: plain_mean(values[at, column(outcome.metric)]) for name, values in limit_tables.items()}


def mean_over(values: Array, at: Sequence[int], clusters: Clusters, resamples: int) -> dict[str, Any]:
    """The mean over rows `at` with its interval."""
    if not len(at):
        return {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "missing": 0}
    chosen = values[at][:, None]
    found = bootstrap_means(chosen, np.ones_like(chosen), clusters[at], resamples, SEED)[0]
    return dataclasses.asdict(rounded(found))


def plain_mean(values: Array) -> float | None:
    """The mean of what was measured; None when nothing was."""
    known = values[~np.isnan(values)]
    return round(float(known.mean()), 6) if len(known) else None


def interval_of(found: Mapping[str, Any]) -> Interval:
    """Its mean and interval."""
    return Interval(found["mean"], found["ci_low"], found["ci_high"])
