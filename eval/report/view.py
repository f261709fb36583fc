"""Reading `results`: names, numbers as text, what stands beside a score. A key that is absent reads "n/a". No torch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval.render.blocks import Paragraph, Strong, paragraph
from sft.data.records import GROUPS

BASE, TUNED = "base", "tuned"
HEADLINE = "character_f1"
NOTHING = "n/a"
SIGNIFICANT = 0.05
TITLES = {"open": "Open QA", "context": "Context QA", "other": "Other categories"}
NAMES = {
    "character_f1": "character F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "edit_similarity": "edit similarity",
    "exact_match": "exact match",
    "gold_contained": "gold contained",
    "facts_recall": "facts of the reference found",
    "numbers_recall": "… numbers",
    "dates_recall": "… dates",
    "names_recall": "… names",
    "katakana_recall": "… katakana words",
    "unsupported_facts": "unsupported facts ↓",
    "unsupported_numbers": "… numbers ↓",
    "unsupported_dates": "… dates ↓",
    "unsupported_names": "… names ↓",
    "unsupported_katakana": "… katakana words ↓",
    "reference_bits_per_character": "reference bits / character ↓",
    "context_gain": "context gain, bits / character",
    "coverage": "share copied from the context",
    "density": "length of copied passages",
    "noun_support": "nouns found in the context",
    "number_support": "numbers found in the context",
    "katakana_support": "katakana words found in the context",
    "eos_rate": "ended by itself (EOS)",
    "length_ratio": "length / reference",
    "rep_4": "repeated 4-grams",
    "distinct_2": "distinct 2-grams",
    "particle_share": "particles",
    "punctuation_share": "punctuation",
    "training_overlap": "longest training passage, characters",
}
"""Metric → what readers see; a metric that is not here is shown by its key. ↓ marks where less is better, … a part
of the metric above it."""

OVERLAP_METRICS = ("character_f1", "rouge_l", "chrf", "edit_similarity")
CORRECTNESS_METRICS = (
    "gold_contained", "exact_match", "facts_recall", "numbers_recall", "dates_recall", "names_recall",
    "katakana_recall",
)  # fmt: skip
GROUNDING_METRICS = (
    "coverage", "density", "noun_support", "number_support", "katakana_support", "unsupported_facts",
    "unsupported_numbers", "unsupported_dates", "unsupported_names", "unsupported_katakana",
)  # fmt: skip
DECODING_FREE_METRICS = ("reference_bits_per_character", "context_gain")
BEHAVIOUR_METRICS = (
    "eos_rate", "length_ratio", "rep_4", "distinct_2", "particle_share", "punctuation_share", "training_overlap",
)  # fmt: skip

Results = Mapping[str, Any]
Estimate = Mapping[str, Any]


class Scope(NamedTuple):
    """A category or a group, as the results address it."""

    kind: str
    name: str

    @property
    def label(self) -> str:
        """`closed_qa`, or `context, all` for the group."""
        return f"{self.name}, all" if self.kind == "groups" else self.name


class Limit(NamedTuple):
    """The best floor or the ceiling beside a score: its mean (None: not measured) and its name."""

    mean: float | None
    name: str


def name_of(metric: str) -> str:
    """What readers see for a metric's key."""
    return NAMES.get(metric, metric.replace("_", " "))


def estimate(scores: Mapping[str, Any] | None, scope: Scope, metric: str) -> Estimate:
    """`scores[kind][name][metric]` with every key there; all None where it was not measured."""
    found = ((scores or {}).get(scope.kind, {}).get(scope.name) or {}).get(metric) or {}
    return {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "missing": 0, "p": None, "p_holm": None} | found


def scopes_of(results: Results, group: str) -> list[Scope]:
    """The group's categories that have rows, then the group; nothing for a group without rows."""
    if group not in results["rows"]["groups"]:
        return []
    present = [Scope("categories", c) for c in GROUPS[group] if c in results["rows"]["categories"]]
    return [*present, Scope("groups", group)]


def all_scopes(results: Results) -> list[Scope]:
    """Every category and group that has rows, in report order."""
    return [scope for group in GROUPS for scope in scopes_of(results, group)]


def measured(results: Results, scopes: Sequence[Scope], metrics: Sequence[str]) -> list[str]:
    """Those of `metrics` that some system has a value of in one of `scopes`."""
    systems = results["systems"].values()
    return [m for m in metrics if any(estimate(s, c, m)["mean"] is not None for s in systems for c in scopes)]


def seed_of(results: Results) -> int:
    """The seed that everything drawn at random started from."""
    return results["settings"].get("seed", 0)


def rows_in(results: Results, scope: Scope) -> int:
    """How many rows a category or group has."""
    return results["rows"][scope.kind][scope.name]


def best_floor(results: Results, scope: Scope, metric: str) -> Limit:
    """The highest of the floors that were measured there."""
    means = {name: estimate(floor, scope, metric)["mean"] for name, floor in results.get("floors", {}).items()}
    known = [Limit(mean, name) for name, mean in means.items() if mean is not None]
    return max(known, key=lambda floor: floor.mean or 0.0, default=Limit(None, "none"))


def ceiling(results: Results, scope: Scope, metric: str) -> Limit:
    """The highest of the ceilings that were measured there."""
    ceilings = results.get("ceilings", {})
    means = {name: estimate(ceiling, scope, metric)["mean"] for name, ceiling in ceilings.items()}
    known = [Limit(mean, name.replace("_", " ")) for name, mean in means.items() if mean is not None]
    return max(known, key=lambda limit: limit.mean or 0.0, default=Limit(None, "none"))


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """`0.394`, `+0.021` with `signed`, `12.3` from 10 upwards, `n/a` for None."""
    if value is None:
        return NOTHING
    return f"{value:{'+' if signed else ''}.{digits if abs(value) < 10 else 1}f}"


def interval(found: Estimate, signed: bool = False, digits: int = 3) -> str:
    """`[0.357, 0.431]`; `[–]` for an interval that does not exist, nothing where there is no mean either."""
    if found["mean"] is None:
        return ""
    ends = [number(found[end], signed, digits) for end in ("ci_low", "ci_high") if found[end] is not None]
    return f"[{', '.join(ends) or '–'}]"


def with_interval(found: Estimate, signed: bool = False) -> str:
    """`0.394 [0.357, 0.431]`."""
    return f"{number(found['mean'], signed)} {interval(found, signed)}".rstrip()


def p_value(value: float | None) -> str:
    """`.012`, `<.001`, or `n/a`."""
    if value is None:
        return NOTHING
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def in_words(delta: Estimate) -> str:
    """What a paired difference says, for a reader who will not look at the numbers."""
    if delta["ci_low"] is None:
        return f"not decidable from {delta['n']} rows"
    # A few rows that happen to agree have an interval on one side of 0, however little they show.
    if delta["ci_low"] <= 0 <= delta["ci_high"] or (delta.get("p") or 0) > SIGNIFICANT:
        return f"no difference that {delta['n']} rows can show"
    word = "better" if delta["ci_low"] > 0 else "worse"
    corrected = delta["p_holm"]
    return f"{word}, but not after Holm's correction" if corrected is not None and corrected > SIGNIFICANT else word


def verdict(results: Results, group: str, metric: str = HEADLINE) -> Paragraph:
    """One line: base → tuned, the paired difference with its interval, and what it says in words."""
    title = Strong(TITLES[group])
    if group not in results["rows"]["groups"]:
        return paragraph(title, ": no rows.")
    scope, name = Scope("groups", group), name_of(metric)
    means = {system: estimate(scores, scope, metric) for system, scores in results["systems"].items()}
    floor = best_floor(results, scope, metric)
    beside = f"; best floor {number(floor.mean)} ({floor.name})" if floor.mean is not None else ""
    delta = estimate(results.get("deltas"), scope, metric)
    if delta["mean"] is None:
        listed = ", ".join(f"{system} {with_interval(mean)}" for system, mean in means.items())
        return paragraph(title, f": {name} {listed}{beside}.")
    numbers = f": {name} {number(means[BASE]['mean'])} → {number(means[TUNED]['mean'])}, "
    difference = f"difference {with_interval(delta, signed=True)}: "
    words = in_words(delta)
    if floor.mean is not None and means[TUNED]["mean"] < floor.mean:
        words += ", and below the best floor"
    holm = "" if delta["p_holm"] is None else f"p (Holm) = {p_value(delta['p_holm'])}, ".replace("= <", "< ")
    return paragraph(title, numbers + difference, Strong(words), f" ({holm}n = {delta['n']}{beside}).")
