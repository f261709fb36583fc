"""Intervals of shares near 0 and 1, where a bootstrap has too little to draw from. No torch here."""

import dataclasses
import math
from statistics import NormalDist

from eval.statistics.estimates import CONFIDENCE, Array, Clusters, Estimate

FEW = 10
"""Rows of one kind, ones or zeros, below which a bootstrap of a share is too narrow: of none it is a point."""


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95% Wilson interval of a share (0–1) of `n` > 0 independent observations; 4 of 200: .008 to .050."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def share_interval(estimate: Estimate, values: Array, clusters: Clusters) -> Estimate:
    """The estimate of a 0/1 metric, with Wilson's interval where fewer than `FEW` rows are ones, or zeros.

    `values` and `clusters` are (rows,), NaN where not measured. Rows of one cluster count as one observation, which is
    on the safe side. An estimate without an interval stays as it is.
    """
    measured = ~(values != values)
    ones = float(values[measured].sum())
    if estimate.mean is None or estimate.ends is None or min(ones, estimate.n - ones) >= FEW:
        return estimate
    low, high = wilson(estimate.mean, len(set(clusters[measured].tolist())))
    return dataclasses.replace(estimate, ci_low=low, ci_high=high)
