"""The rows that systems answered: in which order, the same for all, by category and group; and scores as arrays of
(rows, METRICS). No torch here.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from eval.metrics.catalogue import BY_KEY, METRICS
from eval.metrics.floors import Answers
from eval.metrics.metric import Metric
from eval.predictions import Prediction
from eval.scoring.results import ON_GROUP, RowCounts, Scope
from eval.statistics.estimates import Array, Clusters, cluster_numbers
from sft.data.records import GROUPS, Example, Group, Kind, report_order
from sft.system.errors import UserError
from sft.system.visible import counted

RowScores = Mapping[str, float | None]
"""Metric's key → score; None, or no entry, where it was not measured."""

Value = TypeVar("Value")
Record = TypeVar("Record", bound=Any)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows that every system answered, and how they are drawn again."""

    examples: Sequence[Example]
    resamples: int = 10_000
    seed: int = 0

    @cached_property
    def clusters(self) -> Clusters:
        """(rows,) cluster of each row, counted from 0: rows with one context share one."""
        return cluster_numbers([example.input for example in self.examples])

    @cached_property
    def scopes(self) -> dict[Scope, list[int]]:
        """Row numbers of every category and group that has rows, in report order; see `scopes_of`.

        A group's score is the mean over all of its rows, not over its categories.
        """
        return scopes_of(self.examples)

    @cached_property
    def weights(self) -> Array:
        """(rows, METRICS): 1, but what its metric counts in the row for a ratio."""
        columns = [[m.weight(example) if m.weight else 1 for example in self.examples] for m in METRICS]
        return np.array(columns, dtype=float).T

    @property
    def counts(self) -> RowCounts:
        """How many there are."""
        found = nested({scope: len(rows) for scope, rows in self.scopes.items()})
        under = {scope.name: scope.group for scope in self.scopes if not scope.is_group}
        kinds = Counter(Kind(example.category, example.group) for example in self.examples)
        by_group = {name: {group: count for group in GROUPS if (count := kinds[Kind(name, group)])} for name in under}
        mixed = {name: groups for name, groups in by_group.items() if len(groups) > 1}
        return RowCounts(len(self.examples), len(np.unique(self.clusters)), **found, under=under, mixed=mixed)


class Grouped(Protocol):
    """What is of a category and in a group."""

    @property
    def category(self) -> str:
        """Empty where there is none."""

    @property
    def group(self) -> Group:
        """The report's group."""


def scopes_of(rows: Sequence[Grouped]) -> dict[Scope, list[int]]:
    """Row numbers of every category and group that has rows, in report order, each group behind its categories.

    A category that would say what its group says is left out: none, or one of the group's name, where no group that it
    has rows in has others.
    """
    kinds = [Kind(row.category, row.group) for row in rows]
    found: dict[Scope, list[int]] = {}
    under = report_order(Counter(kinds))
    for group in GROUPS:
        members = [at for at, kind in enumerate(kinds) if kind.group == group]
        for name in [name for name in under if under[name] == group]:
            if name in ("", group) and _alone(name, kinds):
                continue
            found[Scope("categories", name, group)] = [at for at, kind in enumerate(kinds) if kind.category == name]
        if members:
            found[ON_GROUP[group]] = members
    return found


def _alone(category: str, kinds: Sequence[Kind]) -> bool:
    """Whether no group that a category has rows in has others."""
    groups = {kind.group for kind in kinds if kind.category == category}
    return {kind.category for kind in kinds if kind.group in groups} == {category}


def nested(found: Mapping[Scope, Value]) -> dict[str, dict[str, Value]]:
    """The same by kind, then by name, as the results hold it."""
    out: dict[str, dict[str, Value]] = {"categories": {}, "groups": {}}
    for scope, value in found.items():
        out[scope.kind][scope.name] = value
    return out


def row_scores(prediction: Prediction) -> RowScores:
    """Every metric of one answer."""
    return {metric.key: metric.measure(prediction) for metric in METRICS}


def table(scores: Sequence[RowScores]) -> Array:
    """(rows, METRICS), NaN where not measured."""
    values = [[np.nan if (value := row.get(m.key)) is None else value for m in METRICS] for row in scores]
    return np.array(values, dtype=float).reshape(len(scores), len(METRICS))


def text_table(texts: Answers, examples: Sequence[Example], metrics: Sequence[Metric]) -> Array:
    """(rows, METRICS) with some metrics of a text a row, NaN for the others and for rows without a text."""
    rows = zip(texts, examples, strict=True)
    return table([{} if text is None else {m.key: m.measure_text(text, row) for m in metrics} for text, row in rows])


def column(key: str) -> int:
    """Where a metric stands in a table."""
    return list(BY_KEY).index(key)


def rounded(record: Record) -> Record:
    """A dataclass with its numbers to six digits, so that results do not differ by the order of additions."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return dataclasses.replace(
        record, **{name: rounded_number(v) for name, v in values.items() if isinstance(v, float)}
    )


def rounded_number(value: float) -> float:
    """Six digits, and no negative zero."""
    return round(value, 6) + 0.0


def in_row_order(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Predictions in report order of their rows: by category, then by index."""
    found = list(predictions)
    order = report_order(Counter(Kind(one.example.category, one.example.group) for one in found))
    places = {category: place for place, category in enumerate(order)}
    return sorted(found, key=lambda one: (places[one.example.category], one.example.index))


def check_same_rows(first: Mapping[str, Prediction], second: Mapping[str, Prediction], names: tuple[str, str]) -> None:
    """Raise `UserError` unless both hold the same rows: index, category, group and texts.

    The message says by `names` which two, and how many rows differ.
    """
    one, other = names
    alone = sorted(first.keys() ^ second.keys())
    both = sorted(first.keys() & second.keys())
    changed = [index for index in both if _content(first[index].example) != _content(second[index].example)]
    if alone or changed:
        example = {**first, **second}[[*alone, *changed][0]].example
        raise UserError(
            f"{one} ({counted(len(first), 'row')}) and {other} ({counted(len(second), 'row')}) did not answer the same "
            f"rows: {len(alone)} are in one only, {len(changed)} have another text under the same index (for example "
            f"{example.named!r}); answer the same rows with both"
        )


def _content(example: Example) -> tuple[Any, ...]:
    return (example.category, example.group, *row_texts(example))


def row_texts(example: Example) -> tuple[Any, ...]:
    """What was asked, and what counts as right: rows with the same texts are the same row, wherever they stand."""
    return (example.instruction, example.input, example.history, example.references)
