"""Means of scores by category and group, and where they lie between floors and ceiling. No torch here."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from eval.metrics.floors import ORACLE
from eval.metrics.metric import Metric
from eval.scoring.results import Position, Scores
from eval.scoring.rows import Rows, column, nested, rounded
from eval.statistics.estimates import Array, band_position, bootstrap_means
from eval.statistics.shares import share_interval


def means(rows: Rows, tables: Sequence[Array], metrics: Sequence[Sequence[Metric]]) -> list[Scores]:
    """The means of each (rows, METRICS) table, of those metrics that are wanted of it.

    All are drawn together, so that they share their resamples.
    """
    wanted = [(place, metric) for place, some in enumerate(metrics) for metric in some]
    columns = [column(metric.key) for _, metric in wanted]
    values = np.stack([tables[place][:, at] for (place, _), at in zip(wanted, columns, strict=True)], axis=1)
    found: list[dict] = [{} for _ in tables]
    for scope, at in rows.scopes.items():
        weights = rows.weights[np.ix_(at, columns)]
        estimates = bootstrap_means(values[at], weights, rows.clusters[at], rows.resamples, rows.seed)
        for (place, metric), estimate, scores in zip(wanted, estimates, values[at].T, strict=True):
            if metric.binary:
                estimate = share_interval(estimate, scores, rows.clusters[at])
            found[place].setdefault(scope, {})[metric.key] = rounded(estimate)
    return [Scores(**nested(by_scope)) for by_scope in found]


def position_of(rows: Rows, at: Sequence[int], metric: Metric, system: Array, limits: Mapping[str, Array]) -> Position:
    """Where the score of rows `at` lies between the best floor (0) and the ceiling (1).

    All tables are (rows, METRICS); `limits` are the floors and the oracle sentence by name. The ceiling is the oracle
    sentence where one of the rows has a context, and a perfect score elsewhere. The best floor is the one with the
    highest mean over the rows that it and the ceiling answer, kept for all resamples.
    """
    scores = {name: values[at, column(metric.key)] for name, values in limits.items()}
    ceiling, ceiling_name = scores.pop(ORACLE), ORACLE
    if np.isnan(ceiling).all():
        ceiling, ceiling_name = np.ones(len(at)), "perfect"
    known = {name: np.where(np.isnan(ceiling), np.nan, values) for name, values in scores.items()}
    known = {name: values for name, values in known.items() if not np.isnan(values).all()}
    best = max(known, key=lambda name: np.nanmean(known[name]))
    found = band_position(
        system[at, column(metric.key)], known[best], ceiling, rows.clusters[at], rows.resamples, rows.seed
    )
    used = ~np.isnan(known[best])
    ends = float(known[best][used].mean()), float(ceiling[used].mean())
    return rounded(
        Position(
            **dataclasses.asdict(found), floor=ends[0], ceiling=ends[1], floor_name=best, ceiling_name=ceiling_name
        )
    )
