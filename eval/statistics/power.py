"""How many rows would show a difference of the size seen. No torch here."""

import math
from statistics import NormalDist

from eval.statistics.estimates import CONFIDENCE, Estimate

POWER = 0.8
MOST_ROWS = 1_000_000


def rows_to_show(difference: Estimate) -> int | None:
    """Rows of the same kind with which a difference as large as this one is found in 80 of 100 evaluations, at 95%.

    n · ((z.975 + z.8) · standard error / difference)², the standard error read off the 95% interval. None without an
    interval or a difference, and above a million. It takes the difference seen for the true one: an order of magnitude.
    """
    if not difference.mean or difference.ends is None:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    low, high = difference.ends
    error = (high - low) / (2 * z)
    rows = math.ceil(difference.n * ((z + NormalDist().inv_cdf(POWER)) * error / difference.mean) ** 2)
    return max(2, rows) if rows <= MOST_ROWS else None
