"""What scoring finds, as types; and the one way into and out of their JSON files. No torch here.

`Results` is results.json (see docs/evaluation.md), key by key: what is written is its fields in their order.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from eval.border import json_text
from eval.metrics.floors import OWN_LEAD
from eval.metrics.metric import Metric
from eval.statistics.estimates import Estimate, Interval
from sft.data.records import DOLLY, GROUPS, Group, category_label
from sft.run.provenance import Provenance
from sft.system.files import text_sha256

RESULTS_VERSION = 2

Kind = Literal["categories", "groups"]
Measure = TypeVar("Measure", bound=Estimate)


class Scope(NamedTuple):
    """A category or a group of rows; a category stands under the group of most of its rows."""

    kind: Kind
    name: str
    group: Group

    @property
    def label(self) -> str:
        """`closed_qa`, or `context, all` for the group."""
        return f"{self.name}, all" if self.is_group else category_label(self.name)

    @property
    def is_group(self) -> bool:
        """Whether it is a group of categories."""
        return self.kind == "groups"


ON_GROUP = {group: Scope("groups", group, group) for group in GROUPS}
ON_OPEN, ON_CONTEXT = ON_GROUP["open"], ON_GROUP["context"]


@dataclasses.dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """A paired difference between two systems.

    `p` is two-sided: `test` says whether by sign flips over the clusters or, for 0/1 metrics of rows that share no
    context, exactly from the rows that changed. `p_holm` is p adjusted for all headline metrics over all categories
    (or over all groups); None for the other metrics. `p_is_bound`: the flips can give no smaller p, so both are upper
    bounds. `rows_to_show` is how many rows would show a difference of this size; None where nothing says so.
    """

    p: float | None
    p_holm: float | None
    test: Literal["binomial", "sign-flip"]
    p_is_bound: bool = False
    rows_to_show: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Interaction(Interval):
    """A difference between two systems on context rows minus that on open rows; `p_is_bound` as in `Difference`."""

    p: float | None
    n_context: int
    n_open: int
    p_is_bound: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Position(Estimate):
    """Where a score lies between the best floor (0) and the ceiling (1)."""

    floor: float
    ceiling: float
    floor_name: str
    ceiling_name: str


NOT_MEASURED = Estimate(None, None, None, 0, 0)
NO_DIFFERENCE = Difference(None, None, None, 0, 0, None, None, "sign-flip")
NO_INTERACTION = Interaction(None, None, None, None, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Estimates by category or group, then by metric's key."""

    categories: dict[str, dict[str, Estimate]]
    groups: dict[str, dict[str, Estimate]]

    def of(self, scope: Scope, metric: Metric) -> Estimate:
        """The estimate; `NOT_MEASURED` where there is none."""
        return getattr(self, scope.kind).get(scope.name, {}).get(metric.key, NOT_MEASURED)


@dataclasses.dataclass(frozen=True, slots=True)
class GroupScores(Generic[Measure]):
    """Estimates by group, then by metric's key."""

    groups: dict[str, dict[str, Measure]]

    def of(self, scope: Scope, metric: Metric) -> Estimate:
        """The estimate; `NOT_MEASURED` where there is none, as in all categories."""
        return self.groups.get(scope.name, {}).get(metric.key, NOT_MEASURED) if scope.is_group else NOT_MEASURED


@dataclasses.dataclass(frozen=True, slots=True)
class Differences:
    """Paired differences by category or group, then by metric's key; empty without a pair of systems."""

    categories: dict[str, dict[str, Difference]] = dataclasses.field(default_factory=dict)
    groups: dict[str, dict[str, Difference]] = dataclasses.field(default_factory=dict)

    def of(self, scope: Scope, metric: Metric) -> Difference:
        """The difference; `NO_DIFFERENCE` where there is none."""
        return getattr(self, scope.kind).get(scope.name, {}).get(metric.key, NO_DIFFERENCE)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """The best floor or the ceiling beside a score: its mean (None: not measured) and its name."""

    mean: float | None
    name: str


def best(limits: Mapping[str, Scores], scope: Scope, metric: Metric) -> Limit:
    """The highest of the floors, or of the ceilings, that were measured there."""
    means = {name.replace("_", " "): scores.of(scope, metric).mean for name, scores in limits.items()}
    known = [Limit(mean, name) for name, mean in means.items() if mean is not None]
    return max(known, key=lambda limit: limit.mean or 0.0, default=Limit(None, "none"))


@dataclasses.dataclass(frozen=True, slots=True)
class RowCounts:
    """How many rows there are, clusters of rows with one context, and rows of every category and group that has any.

    Categories are in report order. `under` is the group that each of them stands under; results of earlier versions,
    which knew dolly's alone, lack it. `mixed` has the categories with rows in several groups, each with its rows by
    group: it stands whole under one of them, and every group counts its own rows.
    """

    total: int
    clusters: int
    categories: dict[str, int]
    groups: dict[str, int]
    under: dict[str, Group] = dataclasses.field(default_factory=lambda: dict(DOLLY))
    mixed: dict[str, dict[Group, int]] = dataclasses.field(default_factory=dict)

    def of(self, scope: Scope) -> int:
        """How many rows a category or group has."""
        return getattr(self, scope.kind)[scope.name]

    def scopes(self, group: str | None = None) -> list[Scope]:
        """The categories and groups that have rows, each group behind its categories; `group`: that one alone."""
        return [
            scope
            for on_group in ON_GROUP.values()
            for scope in (*self._under(on_group.group), *[on_group] * (on_group.name in self.groups))
            if group in (None, scope.group)
        ]

    def _under(self, group: Group) -> list[Scope]:
        return [Scope("categories", name, group) for name in self.categories if self.under.get(name) == group]


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerCounts:
    """How many answers ended which way, are empty, or had their context shortened.

    One that was chosen among given ones did not end.
    """

    eos: int
    heading: int
    stop: int
    length: int
    error: int
    empty: int
    context_shortened: int


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What was scored, by system as its answers were generated, and how."""

    generation: dict[str, dict[str, Any]]
    resamples: int
    seed: int
    confidence: float
    clusters: str
    headline_metrics: list[str]
    constant: str


@dataclasses.dataclass(frozen=True, slots=True)
class SharedPassage:
    """The longest passage that an answer shares with a training output."""

    index: str
    category: str
    length: int
    passage: str
    training_index: str | None
    """The training row's index or, where that is a hash, its place in the file."""
    named: str | None = None
    """What a reader finds the row by (see `row_name`); None: its index."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredRow:
    """One system's answer to one row: a line of samples.jsonl. `scores` by metric's key, None where not measured.

    `weights` is what the row counts in the mean of the metrics whose rows do not all count the same.
    """

    system: str
    index: str
    category: str
    group: Group
    cluster: int
    finish_reason: str
    scores: dict[str, float | None]
    weights: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """All that scoring found. `deltas` is tuned − base; `interaction`, by metric's key, is empty unless both open and
    context rows were answered; `about` says whose answers these are (None: nothing says it), `predictions` is their
    hash; `samples` go to a file of their own. `own_leads` are, by system, the scores of the context's beginning cut as
    long as each of its answers; results of earlier versions lack them.
    """

    schema_version: int
    settings: Settings
    rows: RowCounts
    answers: dict[str, AnswerCounts]
    systems: dict[str, Scores]
    floors: dict[str, Scores]
    ceilings: dict[str, Scores]
    reference: Scores
    normalised: dict[str, GroupScores[Position]]
    deltas: Differences
    interaction: dict[str, Interaction]
    overlap: dict[str, list[SharedPassage]]
    signatures: dict[str, str]
    versions: dict[str, str]
    about: Provenance | None = None
    predictions: str | None = None
    samples: list[ScoredRow] = dataclasses.field(default_factory=list)
    own_leads: dict[str, Scores] = dataclasses.field(default_factory=dict)

    def floors_of(self, system: str) -> dict[str, Scores]:
        """The floors that a system has to beat: those of all, and the lead of its own length."""
        own = {OWN_LEAD: self.own_leads[system]} if system in self.own_leads else {}
        return self.floors | own

    def best_floor(self, system: str, scope: Scope, metric: Metric) -> Limit:
        """The highest of them."""
        return best(self.floors_of(system), scope, metric)

    def texts(self) -> dict[str, str]:
        """What results.json (all but the samples) and samples.jsonl (a row of a system a line) hold."""
        summary = dataclasses.asdict(dataclasses.replace(self, samples=[]))
        del summary["samples"]
        if not self.deltas.groups:
            summary["deltas"] = {}
        signatures = short_hash(self.signatures)
        made = {name: short_hash([settings, summary["about"]]) for name, settings in self.settings.generation.items()}
        lines = (
            dataclasses.asdict(row) | {"settings": made[row.system], "signatures": signatures} for row in self.samples
        )
        written = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines)
        return {"results.json": json_text(summary), "samples.jsonl": "".join(f"{line}\n" for line in written)}


def short_hash(found: Any) -> str:
    """The first 12 digits of the hash of a JSON value, whatever the order of its keys."""
    return text_sha256([json.dumps(found, ensure_ascii=False, sort_keys=True)])[:12]
