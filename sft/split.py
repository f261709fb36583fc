"""Which rows train, validate and test: stratified by category, decided by a hash of content, contexts kept whole."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sft.records import Example


class Split(NamedTuple):
    """The three sides of a data set. No context, and no instruction without context, stands on two of them."""

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


def stratified_head(examples: Iterable[Example], rows: int | None) -> list[Example]:
    """At most `rows` of `examples`, categories in the proportion they have in all of them; None means all."""
    everything = list(examples)
    if rows is None or rows >= len(everything):
        return everything
    by_category: dict[str, list[Example]] = defaultdict(list)
    for example in everything:
        by_category[example.category].append(example)
    ranked = [
        ((position + 0.5) / len(members), category, example)
        for category, members in by_category.items()
        for position, example in enumerate(members)
    ]
    return [example for _, _, example in sorted(ranked, key=lambda item: item[:2])[:rows]]


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
