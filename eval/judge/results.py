"""What a judge's verdicts show, by category and group, with the statistics of every other score. No torch here."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from eval.judge.verdict import OUTCOMES, TIE, A, B, Outcome, Verdict, holds_verdict
from eval.predictions import Prediction
from eval.scoring.results import Difference, RowCounts, Scope
from eval.scoring.rows import Rows, nested, rounded
from eval.statistics.agreement import Kappa, kappa
from eval.statistics.estimates import (
    Array,
    Estimate,
    binomial_p,
    bootstrap_means,
    holm,
    is_bound,
    paired_difference,
    sign_flip_p,
)  # fmt: skip
from eval.statistics.power import rows_to_show
from eval.statistics.shares import wilson
from sft.data.records import Group

JUDGE_VERSION = 1
Choice = Literal["first", "second", "tie", "disagree", "missing"]
"""What both orders say of a row: which answer is better, a tie, something else each time, or nothing at least once."""


class Judged(NamedTuple):
    """All verdicts, row by row, in the order of `rows`.

    `scores` are by system. `orders`: of the pair's answers, the first shown as A, then the second; None: the two
    answers are the same, and nobody was asked. Both are empty where there is nothing to ask.
    """

    rows: Rows
    answers: dict[str, list[Prediction]]
    pair: tuple[str, str] | None
    scores: dict[str, list[Verdict]]
    orders: list[tuple[Verdict, Verdict] | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Preference:
    """Which of two systems is preferred, by rows. `same` rows, whose answers are the same, are among the ties.

    Only rows of which both orders prefer the same answer decide. `share_second` is the second's share of them, with
    Wilson's 95% interval over contexts. `difference` is (second − first) / rows with both verdicts, as every
    `Difference`; the test is exact where no rows share a context.
    """

    first: int
    second: int
    tie: int
    same: int
    disagree: int
    missing: int
    share_second: float | None
    ci_low: float | None
    ci_high: float | None
    difference: Difference


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """Whether the place decides: how often A, B and a tie were said, with the first system as A and with the second.

    Of `rows` with both verdicts, the two orders say the same in `agreed`. `always_a` rows prefer what is shown as A in
    both orders, `always_b` what is shown as B; `p` is the exact test that neither is likelier. None where no row does.
    """

    first_as_a: dict[str, int]
    second_as_a: dict[str, int]
    rows: int
    agreed: int
    always_a: int
    always_b: int
    p: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeResults:
    """All that was found; what judge.json holds. `calls` count what became of each call, by what was asked; `steering`
    by system the answers that hold a verdict of their own; `people` is the agreement with a rated sheet, on all
    rows, and by group.
    """

    schema_version: int
    judge: dict[str, Any]
    pair: tuple[str, str] | None
    rows: RowCounts
    scores: dict[str, dict[Scope, Estimate]]
    differences: dict[Scope, Difference]
    preferences: dict[Scope, Preference]
    calls: dict[str, dict[Outcome, int]]
    steering: dict[str, int]
    position: Position | None
    people: Kappa | None = None
    people_by_group: dict[Group, Kappa] = dataclasses.field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The results as JSON has them: by kind of scope, then by name."""
        scores = {name: nested(_plain(found)) for name, found in self.scores.items()}
        compared = {"differences": _plain(self.differences), "preferences": _plain(self.preferences)}
        bare = dataclasses.replace(self, scores={}, differences={}, preferences={})
        return {**dataclasses.asdict(bare), "scores": scores, **{name: nested(one) for name, one in compared.items()}}


def _plain(found: Mapping[Scope, Any]) -> dict[Scope, dict[str, Any]]:
    return {scope: dataclasses.asdict(one) for scope, one in found.items()}


def choice_of(orders: tuple[Verdict, Verdict] | None) -> Choice:
    """What the two orders of a row come to."""
    if orders is None:
        return "tie"
    named: list[Choice] = []
    for verdict, as_a, as_b in zip(orders, ("first", "second"), ("second", "first"), strict=True):
        if verdict.value is None:
            return "missing"
        named.append({A: as_a, B: as_b, TIE: "tie"}[verdict.value])  # type: ignore[arg-type]
    return named[0] if named[0] == named[1] else "disagree"


def results_of(judged: Judged, judge: dict[str, Any], people: Mapping[str, Choice] | None = None) -> JudgeResults:
    """The results. `people` are the choices of a rated sheet by the row's index; None: there is none."""
    rows, scopes = judged.rows, judged.rows.scopes
    tables = {name: _scores(found) for name, found in judged.scores.items()}
    choices = [choice_of(orders) for orders in judged.orders]
    signed = np.array([[{"first": -1.0, "second": 1.0, "missing": np.nan}.get(choice, 0.0)] for choice in choices])
    differences: dict[Scope, Difference] = {}
    preferred: dict[Scope, Difference] = {}
    if judged.pair:
        first, second = (tables[name] for name in judged.pair)
        differences = {scope: _difference(rows, at, first[at], second[at]) for scope, at in scopes.items()}
        zeros = np.zeros_like(signed)
        preferred = {scope: _difference(rows, at, zeros[at], signed[at], exact=True) for scope, at in scopes.items()}
        differences, preferred = _corrected(differences, preferred)
    return JudgeResults(
        schema_version=JUDGE_VERSION,
        judge=judge,
        pair=judged.pair,
        rows=rows.counts,
        scores={name: _means(rows, table) for name, table in tables.items()},
        differences=differences,
        preferences={scope: _preference(judged, choices, at, preferred[scope]) for scope, at in scopes.items()}
        if judged.pair
        else {},
        calls=_calls(judged),
        steering={name: sum(holds_verdict(one.text) for one in found) for name, found in judged.answers.items()},
        position=_position(judged.orders) if judged.pair else None,
        people=_agreement(judged, choices, people, range(len(choices))),
        people_by_group={
            scope.group: found
            for scope, at in scopes.items()
            if scope.is_group and (found := _agreement(judged, choices, people, at))
        },
    )


def _scores(verdicts: Sequence[Verdict]) -> Array:
    """(rows, 1) scores, NaN where there is no verdict."""
    return np.array([[np.nan if one.value is None else float(one.value)] for one in verdicts])


def _means(rows: Rows, table: Array) -> dict[Scope, Estimate]:
    found = {}
    for scope, at in rows.scopes.items():
        one = bootstrap_means(table[at], np.ones_like(table[at]), rows.clusters[at], rows.resamples, rows.seed)[0]
        found[scope] = rounded(one)
    return found


def _difference(rows: Rows, at: list[int], first: Array, second: Array, exact: bool = False) -> Difference:
    """Second − first over rows `at`, p not corrected; by `exact`'s test where changes are −1, 0 or 1."""
    clusters, weights, changes = rows.clusters[at], np.ones_like(first), second - first
    estimate = paired_difference(first, second, weights, clusters, rows.resamples, rows.seed)[0]
    exact = exact and len(set(clusters)) == len(at)
    p = binomial_p(changes[:, 0]) if exact else sign_flip_p(changes, weights, clusters, seed=rows.seed)[0]
    return Difference(
        **dataclasses.asdict(estimate),
        p=p,
        p_holm=None,
        test="binomial" if exact else "sign-flip",
        p_is_bound=not exact and is_bound(p),
        rows_to_show=rows_to_show(estimate),
    )


def _corrected(*found: dict[Scope, Difference]) -> list[dict[Scope, Difference]]:
    """The differences with p corrected (Holm) for all of them over all categories, or over all groups."""
    p_values = {(at, s): d.p for at, by_scope in enumerate(found) for s, d in by_scope.items() if d.p is not None}
    adjusted: dict[tuple[int, Scope], float] = {}
    for kind in ("categories", "groups"):
        adjusted |= holm({key: p for key, p in p_values.items() if key[1].kind == kind})
    return [
        {s: rounded(dataclasses.replace(d, p_holm=adjusted.get((at, s)))) for s, d in by_scope.items()}
        for at, by_scope in enumerate(found)
    ]


def _preference(judged: Judged, choices: Sequence[Choice], at: Sequence[int], difference: Difference) -> Preference:
    counts = Counter(choices[row] for row in at)
    deciding = [row for row in at if choices[row] in ("first", "second")]
    share = low = high = None
    if deciding:
        share = counts["second"] / len(deciding)
        low, high = wilson(share, len(set(judged.rows.clusters[deciding].tolist())))
    same = sum(judged.orders[row] is None for row in at)
    found = (counts["first"], counts["second"], counts["tie"], same, counts["disagree"], counts["missing"])
    return rounded(Preference(*found, share, low, high, difference))


def _calls(judged: Judged) -> dict[str, dict[Outcome, int]]:
    asked = {f"score:{name}": found for name, found in judged.scores.items()}
    if judged.pair:
        asked["pair"] = [verdict for orders in judged.orders if orders for verdict in orders]
    counts = {name: Counter(one.outcome for one in found) for name, found in asked.items()}
    return {name: {outcome: found[outcome] for outcome in OUTCOMES} for name, found in counts.items()}


def _position(orders: Sequence[tuple[Verdict, Verdict] | None]) -> Position:
    known = [pair for pair in orders if pair]
    said = [Counter(pair[at].value for pair in known if pair[at].value) for at in range(2)]
    both = Counter(one.value for one, other in known if one.value == other.value)
    choices = Counter(map(choice_of, known))
    agreed = choices["first"] + choices["second"] + choices["tie"]
    ties = np.array([1.0] * both[A] + [-1.0] * both[B] or [np.nan])
    first, second = ({value: counts[value] for value in (A, B, TIE)} for counts in said)
    with_both = agreed + choices["disagree"]
    return rounded(Position(first, second, with_both, agreed, both[A], both[B], binomial_p(ties)))


def _agreement(
    judged: Judged, choices: Sequence[Choice], people: Mapping[str, Choice] | None, at: Sequence[int]
) -> Kappa | None:
    """The judge against people on rows `at`: first, second or tie; a row whose orders disagree is a tie here."""
    if people is None:
        return None
    as_one: dict[Choice, Choice | None] = {"missing": None, "disagree": "tie"}
    own = [as_one.get(choices[row], choices[row]) for row in at]
    theirs = [people.get(judged.rows.examples[row].index) for row in at]
    rows = judged.rows
    return rounded(kappa(own, theirs, rows.clusters[[*at]], rows.resamples, rows.seed))
