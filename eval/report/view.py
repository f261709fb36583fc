"""What a difference says, by its test alone, and which scores copying reaches. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from eval.metrics.metric import Metric
from eval.render.numbers import number
from eval.scoring.results import Difference, Results, Scope, Scores
from sft.data.records import Group
from sft.system.yaml_text import read_yaml

SIGNIFICANT = 0.05
Outcome = Literal["better", "worse", "unclear", "no_spread"]
WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
"""What the report says at length."""
TITLES: dict[Group, str] = {"open": "Open QA", "context": "Context QA", "other": "Other categories"}


def measured(systems: Mapping[str, Scores], scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[Metric]:
    """Those of `metrics` that some system has a value of in one of `scopes`."""
    every = [(system, scope) for system in systems.values() for scope in scopes]
    return [m for m in metrics if any(system.of(scope, m).mean is not None for system, scope in every)]


def deciding_p(delta: Difference) -> float | None:
    """The p that decides, after Holm's correction where the metric is in a family; None: nothing can be decided."""
    return delta.p if delta.p_holm is None else delta.p_holm


def outcome(delta: Difference) -> Outcome:
    """What a difference in a score, of which more is better, says: its test alone decides, never its interval."""
    p_value = deciding_p(delta)
    if p_value is None or delta.mean is None:
        return "no_spread"
    if p_value > SIGNIFICANT:
        return "unclear"
    return "better" if delta.mean > 0 else "worse"


def at_odds(delta: Difference) -> bool:
    """Whether the interval, taken alone, would say otherwise than the test: on one side of 0, or on both."""
    if delta.ends is None:
        return False
    low, high = delta.ends
    return (low <= 0 <= high) == (outcome(delta) in ("better", "worse"))


def reached_by_copying(results: Results, scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[str]:
    """In words, each score of a group that needs no understanding: its best floor is as high."""
    found = []
    for metric in metrics:
        for scope in scopes:
            for name, scores in results.systems.items():
                floor, mean = results.best_floor(name, scope, metric), scores.of(scope, metric).mean
                if scope.is_group and mean is not None and floor.mean is not None and floor.mean >= mean > 0:
                    place = f"{metric.name}, {scope.label}, {name}"
                    found.append(f"{place}: {number(mean)} ({floor.name}: {number(floor.mean)})")
    return found
