"""What a difference says, by its test alone, and which metrics were measured. No torch here."""

from collections.abc import Mapping, Sequence
from typing import Literal

from eval.metrics.metric import Metric
from eval.scoring.results import Difference, Scope, Scores

SIGNIFICANT = 0.05
Outcome = Literal["better", "worse", "unclear", "no_spread"]


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
