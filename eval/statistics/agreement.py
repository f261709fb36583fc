"""How far two raters of the same rows agree beyond chance. No torch here."""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from eval.statistics.estimates import Array, Clusters, Estimate, ends_of, resampled_counts


@dataclasses.dataclass(frozen=True, slots=True)
class Kappa(Estimate):
    """Cohen's kappa with its 95% interval: 1 is full agreement, 0 what chance gives, below 0 less than that.

    `agreed` is how many of the `n` rows that both rated were rated alike; `missing` rows were not rated by both.
    `mean` is None where kappa does not exist: nothing was rated, or both gave all rows one and the same rating.
    """

    agreed: int


def kappa(
    first: Sequence[Hashable | None],
    second: Sequence[Hashable | None],
    clusters: Clusters,
    resamples: int = 10_000,
    seed: int = 0,
) -> Kappa:
    """Kappa = (observed − expected) / (1 − expected) agreement of two raters of the same rows; None: not rated.

    `expected` is the agreement of independent raters with the same shares (Cohen 1960). The interval is a percentile
    bootstrap over whole clusters, without resamples in which kappa does not exist; None for fewer than two clusters.
    """
    rated = [at for at, pair in enumerate(zip(first, second, strict=True)) if None not in pair]
    names = {
        name: at for at, name in enumerate(dict.fromkeys([first[at] for at in rated] + [second[at] for at in rated]))
    }
    size = len(names)
    members, numbers = np.unique(clusters[rated], return_inverse=True)
    tables = np.zeros((len(members), size, size))
    for at, cluster in zip(rated, numbers, strict=True):
        tables[cluster, names[first[at]], names[second[at]]] += 1
    total = tables.sum(axis=0)
    found = float(_kappas(total[None])[0]) if rated else np.nan
    ends: tuple[float | None, float | None] = (None, None)
    if len(members) > 1 and not np.isnan(found):
        flat = tables.reshape(len(members), -1)
        draws = [count @ flat for count in resampled_counts(len(members), resamples, seed)]
        ends = ends_of(_kappas(np.vstack(draws).reshape(-1, size, size)))
    mean = None if np.isnan(found) else found
    return Kappa(mean, *ends, len(rated), len(first) - len(rated), int(np.trace(total)))


def _kappas(tables: Array) -> Array:
    """(tables,) kappa of each (ratings, ratings) table of counts; NaN where it does not exist."""
    total = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / total
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    room = 1 - expected
    return np.divide(observed - expected, room, out=np.full_like(room, np.nan), where=room > 1e-12)
