"""The kinds of rows that there are: categories as the file has them, each in a group of the report."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from sft.data.records import CATEGORIES, GROUP_OF, GROUPS, Example
from sft.data.rows import categories, with_context


class Kind(NamedTuple):
    """A category ("" for none) and the group that it is in."""

    category: str
    group: str


def kind_of(example: Example) -> Kind:
    """The kind of a row."""
    return Kind(example.category, _group(example.category, bool(example.input)))


def kind_counts(rows: Dataset) -> Counter[Kind]:
    """Rows by kind."""
    codes, names = categories(rows)
    both, counts = np.unique(codes.astype(np.int64) * 2 + with_context(rows), return_counts=True)
    found: Counter[Kind] = Counter()
    for code, count in zip(both.tolist(), counts.tolist(), strict=True):
        name = names[code // 2]
        found[Kind(name, _group(name, bool(code % 2)))] += count
    return found


def report_order(counts: Counter[Kind]) -> list[Kind]:
    """By group, dolly's categories in their order, the user's from the most rows to the fewest, "" last."""

    def place(kind: Kind) -> tuple[int, bool, int, int, str]:
        known = CATEGORIES.index(kind.category) if kind.category in CATEGORIES else len(CATEGORIES)
        return list(GROUPS).index(kind.group), not kind.category, known, -counts[kind], kind.category

    return sorted(counts, key=place)


def _group(category: str, has_context: bool) -> str:
    return GROUP_OF.get(category) or ("context" if has_context else "open")
