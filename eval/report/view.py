"""What results say in words. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.metrics.catalogue import HEADLINE
from eval.metrics.metric import Metric
from eval.predictions import BASE, TUNED
from eval.render.numbers import number, p_is, round_up, with_interval
from eval.scoring.results import ON_GROUP, Difference, Results, Scope, Scores
from sft.data.records import Group
from sft.page.blocks import Paragraph, Strong, paragraph
from sft.system.visible import counted
from sft.system.yaml_text import read_yaml

SIGNIFICANT = 0.05
ENOUGH_ENDINGS = 0.8
"""Share of answers that end by themselves below which the report says what to do about it."""
WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
"""What the report says at length."""
TITLES: dict[Group, str] = {"open": "Open QA", "context": "Context QA", "other": "Other categories"}


def measured(systems: Mapping[str, Scores], scopes: Sequence[Scope], metrics: Sequence[Metric]) -> list[Metric]:
    """Those of `metrics` that some system has a value of in one of `scopes`."""
    every = [(system, scope) for system in systems.values() for scope in scopes]
    return [m for m in metrics if any(system.of(scope, m).mean is not None for system, scope in every)]


def in_words(delta: Difference) -> str:
    """What a paired difference says, for a reader who will not look at the numbers."""
    if delta.ends is None:
        return f"not decidable from {counted(delta.n, 'row')}"
    low, high = delta.ends
    # A few rows that happen to agree have an interval on one side of 0, however little they show.
    if low <= 0 <= high or (delta.p or 0) > SIGNIFICANT:
        return f"no difference that {counted(delta.n, 'row')} can show"
    word = "better" if low > 0 else "worse"
    corrected = delta.p_holm
    return f"{word}, but not after Holm's correction" if corrected is not None and corrected > SIGNIFICANT else word


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


def verdict(results: Results, group: Group, metric: Metric = HEADLINE) -> Paragraph:
    """One line: base → tuned, the paired difference with its interval, and what it says in words."""
    title, scope = Strong(TITLES[group]), ON_GROUP[group]
    if group not in results.rows.groups:
        return paragraph(title, ": no rows.")
    means = {system: scores.of(scope, metric) for system, scores in results.systems.items()}
    of_whom = TUNED if TUNED in results.systems else next(reversed(results.systems))
    floor, delta = results.best_floor(of_whom, scope, metric), results.deltas.of(scope, metric)
    beside = f"; best floor {number(floor.mean)} ({floor.name})" if floor.mean is not None else ""
    if delta.mean is None:
        listed = ", ".join(f"{system} {with_interval(mean)}" for system, mean in means.items())
        return paragraph(title, f": {metric.name} {listed}{beside}.")
    tuned = means[TUNED].mean
    numbers = f": {metric.name} {number(means[BASE].mean)} → {number(tuned)}, "
    words = in_words(delta)
    if floor.mean is not None and tuned is not None and tuned < floor.mean:
        words += ", and below the best floor"
    holm = "" if delta.p_holm is None else f"p (Holm) {p_is(delta.p_holm, delta.p_is_bound)}, "
    rows = delta.rows_to_show
    unseen = rows and rows > delta.n and words.startswith("no difference")
    needed = WORDS["rows_to_show"].format(rows=round_up(rows)) if rows and unseen else ""
    difference = f"difference {with_interval(delta, signed=True)}: "
    return paragraph(title, numbers + difference, Strong(words), f" ({holm}n = {delta.n}{needed}{beside}).")


def endings(results: Results) -> list[Paragraph]:
    """A line on how the answers ended, and the remedy, where too few of a tuned model's end by themselves; else none.

    Those that end at a stop string end as somebody wished.
    """
    name, counts = list(results.answers.items())[-1]
    total = results.rows.total
    if name == BASE or counts.eos + counts.stop >= ENOUGH_ENDINGS * total:
        return []
    found = f": of {total} answers ({name}) {counts.eos} ended by themselves, {counts.heading} ran on into the template"
    remedy = "ran_on" if counts.heading >= counts.length else "cut_at_limit"
    tokens = results.settings.generation[name].get("max_new_tokens")
    limit = f"{tokens} tokens" if tokens else "the length limit"
    words = f" and were cut there, {counts.length} were cut at {limit}. {WORDS['endings'][remedy]}"
    return [paragraph(Strong("Endings"), found + words)]
