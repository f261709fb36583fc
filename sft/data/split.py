"""Which rows train, validate and test: stratified by category, decided by a hash of content, contexts kept whole.

And how often an epoch shows the rows of each category.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from datasets import Dataset

from sft.data.records import GROUP_OF
from sft.data.rows import categories, numbers, select


class Split(NamedTuple):
    """The three sides of a data set. No context, and no instruction without context, stands on two of them.

    `train` may hold a row several times, where an epoch shows it several times.
    """

    train: Dataset
    validation: Dataset
    test: Dataset


def split_rows(rows: Dataset, validation_share: float, test_share: float) -> Split:
    """Split rows by category so that each side gets its share of every category, to the nearest row.

    Rows with the same context (or, without one, the same instruction) form a unit that is never torn
    apart. Units are ordered by the SHA-256 of their text, so the split does not depend on the rows'
    order, on a random generator or on the platform. Shares are in [0, 1); the rest trains.
    """
    rows = hash_order(rows)
    side = _sides(numbers(rows, "text_hash"), categories(rows)[0], validation_share, test_share)
    return Split(*(select(rows, side == number) for number in (2, 1, 0)))


def _sides(units: np.ndarray, categories: np.ndarray, validation_share: float, test_share: float) -> np.ndarray:
    """Each row's side: 0 tests, 1 validates, 2 trains. `units` are hashes, equal for rows of one unit."""
    order = np.argsort(units, kind="stable").astype(np.int32)
    units = units[order]
    starts = np.flatnonzero(np.append(True, units[1:] != units[:-1])[: len(units)]).astype(np.int32)
    sizes = np.diff(starts, append=np.int32(len(units)))
    # A unit that spans categories counts in the first of them by name.
    strata = np.minimum.reduceat(categories[order], starts) if len(units) else categories
    side_of_unit = np.empty(len(sizes), np.uint8)
    for stratum in np.unique(strata):
        members = strata == stratum
        lengths = sizes[members]
        # A unit goes where its middle falls, so that the sides' sizes are right to within half a unit.
        middles = (np.cumsum(lengths) - lengths / 2) / lengths.sum()
        bounds = [test_share, test_share + validation_share]
        side_of_unit[members] = np.searchsorted(bounds, middles, side="right")
    side = np.empty(len(units), np.uint8)
    side[order] = np.repeat(side_of_unit, sizes)
    return side


def hash_order(rows: Dataset) -> Dataset:
    """The rows in the order of a hash of their index: any beginning is a fair sample, the same everywhere."""
    return select(rows, np.argsort(numbers(rows, "index_hash"), kind="stable"))


def tempered_weights(
    counts: Mapping[str, int], temperature: float, by: Literal["group", "category"]
) -> dict[str, float]:
    """Weights that give each group (or category) a share of the epoch in proportion to count ** temperature.

    `counts` are rows by category. The largest group (or category) keeps weight 1 and smaller ones get more, so no row
    is left out. Categories of a group keep their proportions. Temperature 1 changes nothing, 0 makes all equal.
    """
    unit_of = GROUP_OF if by == "group" else {category: category for category in counts}
    sizes: Counter[str] = Counter()
    for category, count in counts.items():
        sizes[unit_of[category]] += count
    largest = max(sizes.values())
    return {category: (largest / sizes[unit_of[category]]) ** (1 - temperature) for category in counts}


def epoch_rows(rows: Dataset, weights: Mapping[str, float], limit: int | None) -> Dataset:
    """The rows of an epoch, at most `limit` (None: all), categories in the proportions that `weights` give them.

    A category of n rows and weight w has round(w × n) places, filled by its rows in their order and from the
    start again where they do not suffice; 0 leaves it out. What is not in `weights` has weight 1. A beginning of the
    epoch keeps the proportions; a whole one has the rows in their order, then those that come again.
    """
    codes, names = categories(rows)
    sizes = np.bincount(codes, minlength=len(names)).tolist()
    counts = [round(weights.get(category, 1.0) * size) for category, size in zip(names, sizes, strict=True)]
    keys = np.empty(sum(counts), np.int64)  # a place's round and row in one number; categories in order of their names
    shares = np.empty(len(keys))  # how much of its category lies before a place
    start = 0
    for code, count in enumerate(counts):
        if count:
            members = np.flatnonzero(codes == code)
            round_, member = np.divmod(np.arange(count), len(members))
            keys[start : start + count] = round_ * len(codes) + members[member]
            shares[start : start + count] = (np.arange(count) + 0.5) / count
            start += count
    if limit is None or limit >= len(keys):
        keys.sort()
    else:
        keys = keys[np.argsort(shares, kind="stable")[:limit]]
    return select(rows, keys % max(1, len(codes)))


def category_head(rows: Dataset, limit: int | None) -> Dataset:
    """At most `limit` rows of each category, in their order; None means all."""
    if limit is None:
        return rows
    codes, _ = categories(rows)
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    place_in_category = np.arange(len(codes)) - np.searchsorted(in_order, in_order)
    return select(rows, np.sort(order[place_in_category < limit]))
