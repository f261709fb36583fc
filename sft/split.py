"""Which rows train, validate and test: stratified by category, decided by a hash of content, contexts kept whole.

And how often an epoch shows the rows of each category.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sft.records import GROUP_OF, Example


class Split(NamedTuple):
    """The three sides of a data set. No context, and no instruction without context, stands on two of them.

    `train` may hold a row several times, where an epoch shows it several times.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def split_examples(examples: Sequence[Example], validation_share: float, test_share: float) -> Split:
    """Split `examples` by category so that each side gets its share of every category, to the nearest row.

    Rows with the same context (or, without one, the same instruction) form a unit that is never torn
    apart. Units are ordered by the SHA-256 of their text, so the split does not depend on the rows'
    order, on a random generator or on the platform. Shares are in [0, 1); the rest trains.
    """
    units: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        units[_unit_key(example)].append(example)
    strata: dict[str, list[list[Example]]] = defaultdict(list)
    for key in sorted(units, key=_hash):
        # A unit that spans categories counts in the first of them by name.
        strata[min(example.category for example in units[key])].append(units[key])
    sides = Split([], [], [])
    for stratum in strata.values():
        rows = sum(len(unit) for unit in stratum)
        taken = 0
        for unit in stratum:
            # A unit goes where its middle falls, so that the sides' sizes are right to within half a unit.
            middle = (taken + len(unit) / 2) / rows
            side = (
                sides.test
                if middle < test_share
                else sides.validation
                if middle < test_share + validation_share
                else sides.train
            )
            side.extend(unit)
            taken += len(unit)
    return Split(*map(hash_order, sides))


def hash_order(examples: Iterable[Example]) -> list[Example]:
    """The examples in the order of a hash of their index: any beginning is a fair sample, the same everywhere."""
    return sorted(examples, key=lambda example: _hash(example.index))


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


def epoch_rows(examples: Iterable[Example], weights: Mapping[str, float], rows: int | None) -> list[Example]:
    """The rows of an epoch, at most `rows` (None: all), categories in the proportions that `weights` give them.

    A category of n examples and weight w has round(w × n) places, filled by its examples in their order and from the
    start again where they do not suffice; 0 leaves it out. What is not in `weights` has weight 1. A beginning of the
    epoch keeps the proportions; a whole one has the examples in their order, then those that come again.
    """
    everything = list(examples)
    by_category: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(everything):
        by_category[example.category].append(position)
    places = []
    for category, members in by_category.items():
        count = round(weights.get(category, 1.0) * len(members))
        for place in range(count):
            round_, member = divmod(place, len(members))
            places.append(((place + 0.5) / count, category, round_, members[member]))
    if rows is None or rows >= len(places):
        places.sort(key=lambda place: place[2:])
    else:
        places = sorted(places, key=lambda place: place[:2])[:rows]
    return [everything[position] for *_, position in places]


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
    text = f"context:{example.input}" if example.input else f"instruction:{example.instruction}"
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
