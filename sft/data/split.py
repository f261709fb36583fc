"""Which rows train, validate and test: decided by a hash of each row's text alone, contexts kept whole.

And how often an epoch shows the rows of each category.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from datasets import Dataset

from sft.data.files.sources import Held
from sft.data.records import Kind
from sft.data.rows import kind_counts, kinds, names, numbers, select

HASHES = 2**64
"""How many values a hash of a row's text may have."""
SIDES = ("test", "validation", "train")
"""By number."""
NOWHERE = len(SIDES)
HELD_ELSEWHERE = "its context or question stands in data.validation or data.test, too"
"""Why a row is on no side."""


class Split(NamedTuple):
    """The three sides of a data set. No context, and no instruction without context, stands on two of them.

    `train` may hold a row several times, where an epoch shows it several times.
    """

    train: Dataset
    validation: Dataset
    test: Dataset


def split_rows(rows: Dataset, validation_share: float, test_share: float, files: Sequence[Held | None] = ()) -> Split:
    """Split rows so that each side gets about its share of them, the same row always on the same side.

    Rows with the same context (or, without one, the same first question) form a unit that is never torn apart. A unit's
    side follows from the SHA-256 of its text: the lowest `test_share` of all hashes test, the `validation_share` above
    them validate, the rest trains. So rows that are added or taken away move no others, and neither order nor files,
    random generator nor platform matter. Each side is in the order of a hash of the index. Shares are in [0, 1).

    `files` says, by number, of which files all rows are on one side; other rows of their units are on none.
    """
    rows = hash_order(rows)
    bounds = [round(share * HASHES) for share in (test_share, test_share + validation_share)]
    hashes = numbers(rows, "text_hash")
    side = np.searchsorted(np.array(bounds, np.uint64), hashes, side="right").astype(np.uint8)
    if any(files):
        side = _with_files(side, hashes, numbers(rows, "file"), files)
    return Split(*(select(rows, side == number) for number in (2, 1, 0)))


def _with_files(side: np.ndarray, units: np.ndarray, file: np.ndarray, files: Sequence[Held | None]) -> np.ndarray:
    """Each row's side, that of its file where it has one; `NOWHERE` where another row of its unit stands in a file."""
    fixed = np.array([SIDES.index(held) if held else NOWHERE for held in files], np.uint8)[file]
    divided = fixed == NOWHERE
    side = np.where(divided, side, fixed)
    for place, others in ((SIDES.index("test"), fixed != SIDES.index("test")), (SIDES.index("validation"), divided)):
        side[others & np.isin(units, units[fixed == place])] = NOWHERE
    return side


def on_no_side(rows: Dataset, split: Split) -> Counter[tuple[str, str]]:
    """Rows that `split_rows` put on no side, by reason and category."""
    left = kind_counts(rows)
    for side in split:
        left -= kind_counts(side)
    counts: Counter[tuple[str, str]] = Counter()
    for kind, count in left.items():
        counts[HELD_ELSEWHERE, kind.category] += count
    return counts


def hash_order(rows: Dataset) -> Dataset:
    """The rows in the order of a hash of their index: any beginning is a fair sample, the same everywhere."""
    return select(rows, np.argsort(numbers(rows, "index_hash"), kind="stable"))


def tempered_weights(
    counts: Mapping[Kind, int], temperature: float, by: Literal["group", "category"]
) -> dict[Kind, float]:
    """Weights that give each group (or category) a share of the epoch in proportion to count ** temperature.

    `counts` are rows by kind. The largest group (or category) keeps weight 1 and smaller ones get more, so no row
    is left out. Categories of a group keep their proportions. Temperature 1 changes nothing, 0 makes all equal.
    """
    sizes: Counter[str] = Counter()
    for kind, count in counts.items():
        sizes[getattr(kind, by)] += count
    largest = max(sizes.values())
    return {kind: (largest / sizes[getattr(kind, by)]) ** (1 - temperature) for kind, count in counts.items() if count}


def epoch_rows(rows: Dataset, weights: Mapping[Kind, float], limit: int | None, files: Sequence[float] = ()) -> Dataset:
    """The rows of an epoch, at most `limit` (None: all), kinds in the proportions that `weights` give them.

    A kind of n rows and weight w has round(w × n) places, filled by its rows in their order and from the
    start again where they do not suffice; 0 leaves it out. What is not in `weights` has weight 1. A beginning of the
    epoch keeps the proportions; a whole one has the rows in their order, then those that come again. `files` are
    weights of files by number, which multiply with these; then a kind's rows in one file are a kind of their own.
    """
    codes, found = kinds(rows)
    factors = [weights.get(kind, 1.0) for kind in found]
    if any(weight != 1 for weight in files):
        codes = codes.astype(np.int64) * len(files) + numbers(rows, "file")
        factors = [factor * weight for factor in factors for weight in files]
    sizes = np.bincount(codes, minlength=len(factors)).tolist()
    counts = [round(factor * size) for factor, size in zip(factors, sizes, strict=True)]
    if counts == sizes and (limit is None or limit >= len(codes)):
        return select(rows, slice(None))  # what follows would come to the same, with more memory
    keys = np.empty(sum(counts), np.int64)  # a place's round and row in one number; kinds in order of their names
    shares = np.empty(len(keys))  # how much of its kind lies before a place
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
    codes, _ = names(rows, "category")
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    place_in_category = np.arange(len(codes)) - np.searchsorted(in_order, in_order)
    return select(rows, np.sort(order[place_in_category < limit]))
