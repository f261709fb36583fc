"""Means with bootstrap intervals, paired differences between two systems, and their p values. No torch here.

Arrays are (rows, columns): a column is one metric of one system, NaN where the row was not measured.
Whole clusters of rows are drawn, because rows about the same context do not vary independently
(Miller 2024, arXiv 2411.00640; Koehn 2004, W04-3250).
"""

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

CONFIDENCE = 0.95
FLIPS = 10_000
LEAST_P = 1 / (1 + FLIPS)
"""The least p that so many random flips can give: there it is an upper bound, p ≤ .0001."""
_CELLS_AT_ONCE = 4_000_000

Array = NDArray[np.float64]
Clusters = NDArray[np.intp]
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean, None when nothing was measured, with its 95% interval, None when nothing shows how it spreads."""

    mean: float | None
    ci_low: float | None
    ci_high: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval's ends; None without an interval."""
        return None if self.ci_low is None or self.ci_high is None else (self.ci_low, self.ci_high)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate(Interval):
    """A mean over rows with its interval.

    `n` rows were measured and stand in the mean, `missing` rows were not. `mean` is None when n is 0; the
    interval is None when the measured rows form fewer than two clusters.
    """

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

    `values` and `weights` are (rows, columns), `clusters` is (rows,), some or all from `cluster_numbers`. Each resample
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


def sign_flip_p(
    differences: Array, weights: Array, clusters: Clusters, flips: int = FLIPS, seed: int = 0
) -> list[float | None]:
    """One two-sided p value a column of "the mean of the differences is 0", by random sign flips of clusters.

    Under the null hypothesis a cluster's differences are as likely to come out the other way round. p is
    (1 + flips that leave a mean at least as far from 0) / (1 + flips), so never 0. None when the measured
    rows form fewer than two clusters. With k clusters no p below 2^(1−k) is possible. `differences` and
    `weights` are (rows, columns), NaN where unpaired. Riezler & Maxwell 2005 (W05-0908).
    """
    sums = _cluster_sums(differences, weights, clusters)
    return _flip_p(sums, np.abs(sums.sum(axis=0)), _enough_clusters(differences, clusters), flips, seed)


def is_bound(p_value: float | None) -> bool:
    """Whether a p by random flips is the least that they can give, so that the true one may be smaller."""
    return p_value is not None and p_value <= LEAST_P * (1 + 1e-9)


def binomial_p(differences: Array) -> float | None:
    """Two-sided exact p value for a 0/1 metric: as many rows gained as lost (McNemar's exact test).

    `differences` is (rows,) of −1, 0, 1, NaN where unpaired. Only the rows that changed count: under the null
    hypothesis each is a gain with probability ½, whatever cluster it is in. 1 when none changed, None when
    nothing was measured.
    """
    if np.isnan(differences).all():
        return None
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(min(gained, lost), gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p values adjusted for their number (Holm 1979): each ≤ α is significant, the family's error rate ≤ α.

    The i-th smallest of m is multiplied by m − i + 1, made no smaller than those before it, and cut at 1.
    """
    ascending = sorted(p_values, key=p_values.__getitem__)
    multiplied = (min(1.0, p_values[key] * (len(p_values) - place)) for place, key in enumerate(ascending))
    adjusted = dict(zip(ascending, itertools.accumulate(multiplied, max), strict=True))
    return {key: adjusted[key] for key in p_values}


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast(Interval):
    """A difference between two means over different rows, with its interval and p value; None as in `Estimate`."""

    n_first: int
    n_second: int
    p: float | None


def contrast(
    first: Array, first_clusters: Clusters, second: Array, second_clusters: Clusters, resamples: int, seed: int = 0
) -> list[Contrast]:
    """One `Contrast` a column of mean(first) − mean(second), for two sets of rows that share no cluster.

    Both are (rows, columns) of paired differences, so this is an interaction. The bootstrap draws the two sets
    independently. For p the null hypothesis of one common mean is imposed: deviations from it change sign by
    cluster (the wild cluster bootstrap of Cameron, Gelbach & Miller 2008), two-sided as in `sign_flip_p`.
    """
    sides = [(first, first_clusters), (second, second_clusters)]
    counts = [(~np.isnan(values)).sum(axis=0) for values, _ in sides]
    enough = np.logical_and(*(_enough_clusters(values, clusters) for values, clusters in sides))
    draws = [
        _resampled_means(values, 1.0, clusters, resamples, (seed, side))
        for side, (values, clusters) in enumerate(sides)
    ]
    common = _means(np.vstack([first, second]), 1.0)
    deviations = [
        sign * _cluster_sums(values - common, 1.0, clusters) / np.maximum(1, n)
        for sign, n, (values, clusters) in zip((1, -1), counts, sides, strict=True)
    ]
    differences = _means(first, 1.0) - _means(second, 1.0)
    p_values = _flip_p(np.vstack(deviations), np.abs(differences), enough, FLIPS, seed)
    columns = zip(differences, (draws[0] - draws[1]).T, enough, *counts, p_values, strict=True)
    return [
        Contrast(_known(mean), *ends_of(drawn, known), int(n_first), int(n_second), p_value)
        for mean, drawn, known, n_first, n_second, p_value in columns
    ]


def band_position(
    scores: Array, floors: Array, ceilings: Array, clusters: Clusters, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Where a score lies between floor and ceiling: (mean score − floor) / (ceiling − floor), of means.

    All three are (rows,); rows where one of them is NaN stay out. 0 is the floor, 1 the ceiling; below and above
    are possible. The interval is from resamples of the rows, in which all three vary together; resamples
    whose ceiling is not above their floor stay out. The mean is None when the ceiling is not above the floor.
    """
    columns = np.stack([scores, floors, ceilings], axis=1)
    columns[np.isnan(columns).any(axis=1)] = np.nan
    draws = _resampled_means(columns, 1.0, clusters, resamples, seed)
    position = _position(_means(columns, 1.0)[None])
    return _estimates(position, _position(draws)[:, None], columns[:, :1], clusters)[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of `n` rows, −1 to 1, with its interval and p value; None where it does not exist."""

    rho: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    p: float | None


def rank_correlation(
    first: Array,
    second: Array,
    clusters: Clusters,
    resamples: int = 10_000,
    seed: int = 0,
    given: Array | None = None,
) -> Correlation:
    """Spearman's rank correlation of two columns (rows,), over the rows where both were measured.

    `given`: a third column whose ranks are held fixed, which makes the correlation a partial one; None: none is.
    Ties share their mean rank. Whole clusters are drawn, ranks are taken anew in every resample, and p is two-sided:
    twice the share of resamples on the rarer side of 0, so never 0. All None when a column is constant or the rows
    form fewer than two clusters.
    """
    measured = [first, second] if given is None else [first, second, given]
    known = ~np.isnan(measured).any(axis=0)
    columns = [np.round(values[known], 9) for values in measured]  # noise of a subtraction makes no ranks
    n, members = int(known.sum()), np.unique(clusters[known], return_inverse=True)[1]
    if n < 2 or members.max() == 0 or any(np.ptp(values) == 0 for values in columns):
        return Correlation(None, None, None, n, None)
    rho = float(_rho([rankdata(values)[None] for values in columns], np.ones((1, n)))[0])
    blocks = resampled_counts(int(members.max()) + 1, resamples, seed)
    repeats = (counts[:, members] for counts in blocks)
    draws = np.concatenate([_rho([_repeated_ranks(values, times) for values in columns], times) for times in repeats])
    draws = draws[~np.isnan(draws)]
    rarer = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (1 + float(rarer)) / (1 + len(draws)))
    return Correlation(rho, *ends_of(draws), n, p_value)


def _rho(ranks: Sequence[Array], weights: Array) -> Array:
    """(resamples,) correlation of the first two of two or three (resamples, rows), the third held fixed."""
    x, y, *given = ranks
    found = _weighted_correlation(x, y, weights)
    if not given:
        return found
    with_x, with_y = (_weighted_correlation(values, given[0], weights) for values in (x, y))
    return _ratio(found - with_x * with_y, np.sqrt((1 - with_x**2) * (1 - with_y**2)))


def _repeated_ranks(values: Array, counts: Array) -> Array:
    """(resamples, rows) mean rank of each row when it stands `counts` (resamples, rows) times in the sample."""
    order = np.argsort(values, kind="stable")
    different, inverse = np.unique(values, return_inverse=True)
    starts = np.searchsorted(values[order], different)
    totals = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(totals, axis=1) - totals + (totals + 1) / 2
    return ranks[:, inverse]


def _weighted_correlation(first: Array, second: Array, weights: Array) -> Array:
    """(resamples,) Pearson correlation of two (resamples, rows), weighted; NaN where one is constant."""
    total = weights.sum(axis=1, keepdims=True)
    x, y = (values - (values * weights).sum(axis=1, keepdims=True) / total for values in (first, second))
    return _ratio((weights * x * y).sum(axis=1), np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)))


def _position(means: Array) -> Array:
    return _ratio(means[:, 0] - means[:, 1], means[:, 2] - means[:, 1])


def _flip_p(sums: Array, observed: Array, enough: NDArray[np.bool_], flips: int, seed: int) -> list[float | None]:
    """p of `observed` (columns,) against |Σ ± sums| over the clusters, for (clusters, columns) sums."""
    generator = np.random.default_rng(seed)
    # A sum that is the same but for the order of its additions is as far from 0.
    reached = observed - 1e-9 * np.abs(sums).sum(axis=0)
    as_far = np.zeros(sums.shape[1])
    block = max(1, _CELLS_AT_ONCE // max(1, len(sums)))
    for start in range(0, flips, block):
        signs = generator.integers(0, 2, size=(min(block, flips - start), len(sums)), dtype=np.int8)
        as_far += (np.abs((2.0 * signs - 1) @ sums) >= reached).sum(axis=0)
    return [(1 + float(n)) / (1 + flips) if ok else None for n, ok in zip(as_far, enough, strict=True)]


def _cluster_sums(values: Array, weights: Array | float, clusters: Clusters) -> Array:
    """(clusters, columns) sums of weight·value over the measured rows."""
    different, numbers = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(different), values.shape[1]))
    np.add.at(sums, numbers, np.where(np.isnan(values), 0.0, np.nan_to_num(values) * weights))
    return sums


def _enough_clusters(values: Array, clusters: Clusters) -> NDArray[np.bool_]:
    """(columns,) whether the measured rows form two clusters or more, without which nothing shows their spread."""
    return np.array([len(np.unique(clusters[~np.isnan(column)])) > 1 for column in values.T])


def _means(values: Array, weights: Array | float) -> Array:
    used = np.where(np.isnan(values), 0.0, weights)
    return _ratio((np.nan_to_num(values) * used).sum(axis=0), used.sum(axis=0))


def _resampled_means(
    values: Array, weights: Array | float, clusters: Clusters, resamples: int, seed: int | tuple[int, int]
) -> Array:
    """(resamples, columns); NaN where a resample holds no measured row."""
    sums = _cluster_sums(values, weights, clusters)
    totals = _cluster_sums(np.where(np.isnan(values), np.nan, 1.0), weights, clusters)
    counts = resampled_counts(len(sums), resamples, seed)
    return np.vstack([_ratio(count @ sums, count @ totals) for count in counts])


def resampled_counts(clusters: int, resamples: int, seed: int | tuple[int, int]) -> Iterator[Array]:
    """(some resamples, clusters) blocks of how often each cluster was drawn; together all resamples."""
    # Column after column asks for the same draws, and drawing is nearly all of the work.
    few = clusters * resamples <= _CELLS_AT_ONCE
    return iter(_kept_counts(clusters, resamples, seed)) if few else _drawn_counts(clusters, resamples, seed)


@functools.lru_cache(2)  # of 32 MB at most
def _kept_counts(clusters: int, resamples: int, seed: int | tuple[int, int]) -> list[Array]:
    return list(_drawn_counts(clusters, resamples, seed))


def _drawn_counts(clusters: int, resamples: int, seed: int | tuple[int, int]) -> Iterator[Array]:
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


def _known(mean: float) -> float | None:
    return None if np.isnan(mean) else float(mean)


def ends_of(draws: Array, known: bool = True) -> tuple[float | None, float | None]:
    """The ends of the 95% interval of (resamples,) draws; None where it is not `known` how they spread."""
    if not known:
        return None, None
    low, high = np.nanquantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def _estimates(means: Array, draws: Array, values: Array, clusters: Clusters) -> list[Estimate]:
    known = _enough_clusters(values, clusters) & ~np.isnan(means)
    counts = (~np.isnan(values)).sum(axis=0)
    return [
        Estimate(_known(mean), *ends_of(drawn, spread), int(n), len(values) - int(n))
        for mean, drawn, spread, n in zip(means, draws.T, known, counts, strict=True)
    ]
