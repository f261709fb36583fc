"""Estimates from the study's scores: means and paired effects between cells, with intervals. No torch here.

A training arm's score of a row is the mean over its seeds; rows, and with them contexts, are what is resampled.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.metrics.floors import CEILINGS
from eval.scoring.rows import rounded, rounded_number
from eval.statistics.estimates import (
    Array,
    Interval,
    band_position,
    bootstrap_means,
    contrast,
    is_bound,
    paired_difference,
    sign_flip_p,
)
from eval.statistics.shares import share_interval
from studies.context_qa.measures import BINARY, COMPARED, LEAD
from studies.context_qa.report.material import BySeed, Material, Outcome

SEED = 0
"""Of resampling."""

Found = dict[str, Any] | None
"""An estimate with its keys, or None where something that it needs was not run."""
Term = tuple[float, BySeed | None]
"""A factor, and what it multiplies row by row."""


def effect(material: Material, outcome: Outcome, terms: Sequence[Term], tested: bool = True) -> Found:
    """Σ factor × values, row by row, over the seeds that all terms have: a score, or a paired contrast of several.

    {mean, ci_low, ci_high, n, missing, p, p_is_bound, by_seed, gained, lost}. p is by sign flips over contexts, None
    for a score and unless `tested`. A score of 0 or 1 has Wilson's interval where few rows are one of them; a
    difference of two such of one seed has the rows gained and lost.
    """
    at = material.members(outcome)
    known = [(factor, values) for factor, values in terms if values]
    seeds = common_seeds([values for _, values in known])
    if not at or len(known) < len(terms) or not seeds:
        return None
    clusters, weights = material.rows[outcome.rows].clusters[at], material.weights(outcome)[at][:, None]
    plus = _sum([(factor, values) for factor, values in known if factor > 0], seeds)[at][:, None]
    drawn = (weights, clusters, material.study.resamples, SEED)
    binary = outcome.metric in BINARY
    found: dict[str, Any] = {"p": None, "p_is_bound": False, "by_seed": [], "gained": None, "lost": None}
    if others := [(-factor, values) for factor, values in known if factor < 0]:
        minus = _sum(others, seeds)[at][:, None]
        estimate = paired_difference(minus, plus, *drawn)[0]
        p_value = sign_flip_p(plus - minus, weights, clusters, seed=SEED)[0] if tested else None
        found |= {"p": p_value and rounded_number(p_value), "p_is_bound": is_bound(p_value)}
        if binary and len(seeds) == 1 and len(known) == 2:
            changes = plus - minus
            found |= {"gained": int((changes > 0).sum()), "lost": int((changes < 0).sum())}
    else:
        estimate = bootstrap_means(plus, *drawn)[0]
        estimate = share_interval(estimate, plus[:, 0], clusters) if binary else estimate
    if len(seeds) > 1:
        found["by_seed"] = [_weighted(_sum(known, [seed])[at], weights[:, 0]) for seed in seeds]
    return dataclasses.asdict(rounded(estimate)) | found


def common_seeds(values: Sequence[BySeed]) -> list[int | None]:
    """The seeds that all have; [None] where nothing was trained."""
    trained = [set(one) for one in values if None not in one]
    return sorted(set.intersection(*trained), key=str) if trained else [None]


def _sum(terms: Sequence[tuple[float, BySeed]], seeds: Sequence[int | None]) -> Array:
    """(rows,) Σ factor × the mean over the seeds."""
    means = [f * np.mean([v[None] if None in v else v[seed] for seed in seeds], axis=0) for f, v in terms]
    return np.sum(means, axis=0)


def _weighted(values: Array, weights: Array) -> float | None:
    known = ~np.isnan(values)
    return rounded_number(float(np.average(values[known], weights=weights[known]))) if known.any() else None


def floors(material: Material, outcome: Outcome) -> dict[str, float | None]:
    """Mean of each floor and ceiling over the outcome's rows; None where it answers none, empty where none is known."""
    at = material.members(outcome)
    if at is None or outcome.metric not in COMPARED:
        return {}
    tables = material.rows[outcome.rows].floors
    return {name: plain_mean(table[at, COMPARED.index(outcome.metric)]) for name, table in tables.items()}


def best_floor(material: Material, outcome: Outcome) -> BySeed | None:
    """The scores of the floor with the highest mean; ceilings are none."""
    means = {
        name: mean for name, mean in floors(material, outcome).items() if name not in CEILINGS and mean is not None
    }
    if not means:
        return None
    name = max(means, key=means.__getitem__)
    return {None: material.rows[outcome.rows].floors[name][:, COMPARED.index(outcome.metric)]}


def scored(
    material: Material, outcome: Outcome, arm: str, decoding: str, seeds: Sequence[int] = (), tested: bool = False
) -> Found:
    """A cell's score, and beside it that of the context's beginning at the answers' own length.

    As `effect`, with `lead` (a mean), `above_lead` and `above_floor` (effects against that lead and the best floor),
    None where there is none. `seeds`: only these, where there are any. No effect has a p unless `tested`.
    """

    def values(metric: str = "") -> BySeed | None:
        return material.cell(outcome, arm, decoding, metric, seeds)

    score = effect(material, outcome, [(1, values())])
    if score is None:
        return None
    lead = values(f"{LEAD}{outcome.metric}") if outcome.metric in COMPARED else None
    mean = lead and plain_mean(_sum([(1, lead)], common_seeds([lead]))[material.members(outcome)])
    above_lead = effect(material, outcome, [(1, values()), (-1, lead)], tested) if mean is not None else None
    floor = best_floor(material, outcome)
    above_floor = effect(material, outcome, [(1, values()), (-1, floor)], tested) if floor else None
    return score | {"lead": mean, "above_lead": above_lead, "above_floor": above_floor}


def ratio(material: Material, outcome: Outcome, top: Sequence[Term], bottom: Sequence[Term]) -> Found:
    """Σ of `top` / Σ of `bottom`, of means over the same rows, with its interval; draws that divide by 0 stay out."""
    at, sides = material.members(outcome), [[(f, v) for f, v in side if v] for side in (top, bottom)]
    seeds = common_seeds([values for side in sides for _, values in side])
    if not at or [*map(len, sides)] != [len(top), len(bottom)] or not seeds:
        return None
    above, below = (_sum(side, seeds)[at] for side in sides)
    clusters = material.rows[outcome.rows].clusters[at]
    # With 0 as the floor and the divisor as the ceiling, the position in between is the ratio of the means.
    found = band_position(above, np.zeros(len(at)), below, clusters, material.study.resamples, SEED)
    return dataclasses.asdict(rounded(found))


def interaction(material: Material, outcomes: tuple[Outcome, Outcome], arm: str, before: str, after: str) -> Found:
    """before − after on the first outcome's rows, minus the same on the second's, which share no context."""
    lost, clusters = [], []
    for outcome in outcomes:
        at, first, second = material.members(outcome), *(material.cell(outcome, arm, d) for d in (before, after))
        if not at or not first or not second or not (seeds := common_seeds([first, second])):
            return None
        lost.append(_sum([(1, first), (-1, second)], seeds)[at][:, None])
        clusters.append(material.rows[outcome.rows].clusters[at])
    (found,) = contrast(lost[0], clusters[0], lost[1], clusters[1], material.study.resamples, SEED)
    return dataclasses.asdict(rounded(found)) | {"p_is_bound": is_bound(found.p), "by_seed": []}


def mean_over(values: Array, at: Sequence[int], material: Material, rows: Any) -> dict[str, Any]:
    """The mean over rows `at` with its interval."""
    chosen = values[at][:, None]
    clusters = material.rows[rows].clusters[at]
    found = bootstrap_means(chosen, np.ones_like(chosen), clusters, material.study.resamples, SEED)[0]
    return dataclasses.asdict(rounded(found))


def plain_mean(values: Array) -> float | None:
    """The mean of what was measured; None when nothing was."""
    known = values[~np.isnan(values)]
    return rounded_number(float(known.mean())) if len(known) else None


def interval_of(found: Mapping[str, Any]) -> Interval:
    """Its mean and interval."""
    return Interval(found["mean"], found["ci_low"], found["ci_high"])
