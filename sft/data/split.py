"""Which rows train, validate and test: stratified by category, decided by a hash of content, contexts kept whole.

And how often an epoch shows the rows of each category.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from sft.data.records import GROUP_OF, Example
from sft.data.rows import NAMES, Rows, short_digest


class Split(NamedTuple):
    """The three sides of a data set. No context, and no instruction without context, stands on two of them.

    `train` may hold a row several times, where an epoch shows it several times.
    """

    train: Rows
    validation: Rows
    test: Rows


def split_examples(examples: Sequence[Example], validation_share: float, test_share: float) -> Split:
    """Split `examples` by category so that each side gets its share of every category, to the nearest row.

    Rows with the same context (or, without one, the same instruction) form a unit that is never torn
    apart. Units are ordered by the SHA-256 of their text, so the split does not depend on the rows'
    order, on a random generator or on the platform. Shares are in [0, 1); the rest trains.
    """
    rows = Rows.of(examples)
    order, starts = _units(rows)
    sizes = np.diff(starts, append=np.int32(len(rows)))
    # A unit that spans categories counts in the first of them by name.
    strata = np.minimum.reduceat(rows.categories[order], starts) if len(rows) else np.empty(0, np.uint8)
    side_of_unit = np.empty(len(sizes), np.uint8)
    for stratum in np.unique(strata):
        members = strata == stratum
        lengths = sizes[members]
        # A unit goes where its middle falls, so that the sides' sizes are right to within half a unit.
        middles = (np.cumsum(lengths) - lengths / 2) / lengths.sum()
        bounds = [test_share, test_share + validation_share]
        side_of_unit[members] = np.searchsorted(bounds, middles, side="right")
    side = np.repeat(side_of_unit, sizes)
    return Split(*(hash_order(rows.select(order[side == number])) for number in (2, 1, 0)))


def _units(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The places of the rows, those of a unit together and units in order, and where in it each unit starts."""
    digests = _digests(map(_unit_key, rows), len(rows))
    order = np.argsort(digests, kind="stable").astype(np.int32)
    digests = digests[order]
    return order, np.flatnonzero(np.append(True, digests[1:] != digests[:-1])[: len(rows)]).astype(np.int32)


def hash_order(examples: Sequence[Example]) -> Rows:
    """The examples in the order of a hash of their index: any beginning is a fair sample, the same everywhere."""
    rows = Rows.of(examples)
    return rows.select(np.argsort(_digests((row.index for row in rows), len(rows)), kind="stable"))


def _digests(texts: Iterable[str], count: int) -> np.ndarray:
    """The first 8 bytes of each text's SHA-256, as numbers: they sort as the hashes do."""
    return np.fromiter((int.from_bytes(short_digest(text)[:8]) for text in texts), np.uint64, count)


def named_weights(named: Mapping[str, float]) -> dict[str, float]:
    """Each category's weight, from weights by category or group name; the category's own wins, unnamed ones have 1."""
    return {category: named.get(category, named.get(group, 1.0)) for category, group in GROUP_OF.items()}


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


def epoch_rows(examples: Sequence[Example], weights: Mapping[str, float], rows: int | None) -> Rows:
    """The rows of an epoch, at most `rows` (None: all), categories in the proportions that `weights` give them.

    A category of n examples and weight w has round(w × n) places, filled by its examples in their order and from the
    start again where they do not suffice; 0 leaves it out. What is not in `weights` has weight 1. A beginning of the
    epoch keeps the proportions; a whole one has the examples in their order, then those that come again.
    """
    everything = Rows.of(examples)
    codes = everything.categories
    sizes = np.bincount(codes, minlength=len(NAMES)).tolist()
    counts = [round(weights.get(category, 1.0) * size) for category, size in zip(NAMES, sizes, strict=True)]
    keys = np.empty(sum(counts), np.int64)  # a place's round and row in one number; categories in order of their names
    start = 0
    for code, count in enumerate(counts):
        if count:
            members = np.flatnonzero(codes == code)
            round_, member = np.divmod(np.arange(count), len(members))
            keys[start : start + count] = round_ * len(codes) + members[member]
            start += count
    if rows is None or rows >= len(keys):
        keys.sort()
    else:
        shares = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
        keys = keys[np.argsort(shares, kind="stable")[:rows]]
    return everything.select(keys % max(1, len(codes)))


def category_head(examples: Iterable[Example], rows: int | None) -> list[Example]:
    """At most `rows` examples of each category, in their order; None means all."""
    counts: dict[str, int] = defaultdict(int)
    chosen = []
    for example in examples:
        counts[example.category] += 1
        if rows is None or counts[example.category] <= rows:
            chosen.append(example)
    return chosen


def _unit_key(example: Example) -> str:
    kind, text = ("context", example.input) if example.input else ("instruction", example.instruction)
    return f"{kind}:{' '.join(unicodedata.normalize('NFKC', text).split())}"
