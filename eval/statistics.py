"""Means with bootstrap intervals, and paired differences between two systems. No torch here.

Arrays are (rows, columns): a column is one metric of one system, NaN where the row was not measured.
Whole clusters of rows are drawn, because rows about the same context do not vary independently
(Miller 2024, arXiv 2411.00640; Koehn 2004, W04-3250).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_CELLS_AT_ONCE = 4_000_000

Array = NDArray[np.float64]
Clusters = NDArray[np.intp]


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    `n` rows were measured and stand in the mean, `missing` rows were not. `mean` is None when n is 0; the
    interval is None when the measured rows form fewer than two clusters, which shows no spread.
    """

    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    missing: int


def cluster_numbers(contexts: Sequence[str]) -> Clusters:
    """(rows,) cluster of each row, counted from 0: rows with the same non-empty context share one."""
    seen: dict[str | int, int] = {}
    keys = (context.strip() or row for row, context in enumerate(contexts))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.intp)


def bootstrap_means(
    values: Array, weights: Array, clusters: Clusters, resamples: int = 10_000, seed: int = 0
) -> list[Estimate]:
    """One `Estimate` a column: Σ weight·value / Σ weight over the measured rows, 95% percentile interval.

    `values` and `weights` are (rows, columns), `clusters` is (rows,) from `cluster_numbers`. Each resample
    draws as many clusters as there are, with replacement, and recomputes the ratio of sums. The draws
    depend on the seed and the number of clusters alone: all columns, and all systems over the same rows,
    share them.
    """
    draws = _resampled_means(values, weights, clusters, resamples, seed)
    return _estimates(_means(values, weights), draws, values, clusters)


def paired_difference(
    base: Array, tuned: Array, weights: Array, clusters: Clusters, resamples: int = 10_000, seed: int = 0
) -> list[Estimate]:
    """One `Estimate` a column of mean(tuned) − mean(base) over the rows measured for both.

    Arguments as in `bootstrap_means`, with `base` and `tuned` over the same rows. Both means of a resample
    come from the same draw, so what the rows have in common cancels out.
    """
    unpaired = np.isnan(base) | np.isnan(tuned)
    first, second = np.where(unpaired, np.nan, base), np.where(unpaired, np.nan, tuned)
    means = _means(second, weights) - _means(first, weights)
    both = _resampled_means(np.hstack([first, second]), np.hstack([weights] * 2), clusters, resamples, seed)
    columns = base.shape[1]
    return _estimates(means, both[:, columns:] - both[:, :columns], first, clusters)


def _means(values: Array, weights: Array) -> Array:
    used = np.where(np.isnan(values), 0.0, weights)
    return _ratio((np.nan_to_num(values) * used).sum(axis=0), used.sum(axis=0))


def _resampled_means(values: Array, weights: Array, clusters: Clusters, resamples: int, seed: int) -> Array:
    """(resamples, columns); NaN where a resample holds no measured row."""
    number = int(clusters.max()) + 1
    used = np.where(np.isnan(values), 0.0, weights)
    sums, totals = np.zeros((number, values.shape[1])), np.zeros((number, values.shape[1]))
    np.add.at(sums, clusters, np.nan_to_num(values) * used)
    np.add.at(totals, clusters, used)
    counts = _resampled_counts(number, resamples, seed)
    return np.vstack([_ratio(count @ sums, count @ totals) for count in counts])


def _resampled_counts(clusters: int, resamples: int, seed: int) -> Iterator[Array]:
    """(some resamples, clusters) blocks of how often each cluster was drawn; together all resamples."""
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS_AT_ONCE // clusters)  # bounds memory; 10,000 × 15,000 rows would take gigabytes
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, clusters, size=(size, clusters))
        drawn += np.arange(size)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=size * clusters)
        yield counts.reshape(size, clusters).astype(np.float64)


def _ratio(sums: Array, totals: Array) -> Array:
    return np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)


def _estimates(means: Array, draws: Array, values: Array, clusters: Clusters) -> list[Estimate]:
    tail = (1 - CONFIDENCE) / 2
    estimates = []
    for column, mean in enumerate(means):
        measured = ~np.isnan(values[:, column])
        low = high = None
        if len(np.unique(clusters[measured])) > 1:
            low, high = map(float, np.nanquantile(draws[:, column], (tail, 1 - tail)))
        n = int(measured.sum())
        estimates.append(Estimate(float(mean) if n else None, low, high, n, len(measured) - n))
    return estimates
