"""The report for people: Markdown for the file, a compact table for the terminal. No torch here."""

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.metrics import TEXT_METRICS
from eval.score import BASE, TUNED
from eval.text import escaped, fenced
from sft.records import GROUPS, Prediction

HEADLINE = "character_f1"
NAMES = {
    "rouge_l": "ROUGE-L",
    "character_f1": "character F1",
    "exact_match": "exact match",
    "gold_contained": "gold contained",
    "reference_bits_per_character": "reference bits / character ↓",
    "eos_rate": "ended by itself (EOS)",
    "length_ratio": "length / reference",
}
BEHAVIOUR = ("eos_rate", "length_ratio", "reference_bits_per_character")
TITLES = {"open": "Open QA", "context": "Context QA", "other": "Other categories"}
LEGEND = (
    "Mean [95% interval] over the rows of each category; a group is the mean over all of its rows. "
    "Floors need no understanding: *echo* answers with the question, *shuffled* with another row's reference."
)
EXTREMES, RANDOM_SAMPLES = 3, 4
CONTEXT_SHOWN, TEXT_SHOWN = 400, 1200
NOTHING = "n/a"

Results = Mapping[str, Any]


class Floor(NamedTuple):
    """A floor's mean (None: no floor was measured) and its name."""

    mean: float | None
    name: str


class Scope(NamedTuple):
    """A category or a group, as the results address it."""

    kind: str
    name: str


def markdown(results: Results, predictions: Sequence[Prediction]) -> str:
    """The whole report. `results` is what `eval.score.score` returned for these predictions."""
    sections = [
        "# Evaluation by task category",
        *(verdict(results, group) for group in ("open", "context")),
        LEGEND,
    ]
    for group in GROUPS:
        scopes = _scopes(results, group)
        if scopes:
            sections += [f"## {TITLES[group]}", _score_table(results, scopes, tuple(TEXT_METRICS))]
    every = [scope for group in GROUPS for scope in _scopes(results, group)]
    sections += ["## Behaviour", _score_table(results, every, BEHAVIOUR), _answers_table(results)]
    sections += ["## Samples", *_samples(results, predictions)]
    sections += ["## Provenance", *_provenance(results), "## Caveats", _caveats(results)]
    return "\n\n".join(sections) + "\n"


def verdict(results: Results, group: str) -> str:
    """One line: base → tuned, the paired difference with its interval, and what it says in words."""
    title = f"**{TITLES[group]}**"
    if group not in results["rows"]["groups"]:
        return f"{title}: no rows."
    means = {name: system["groups"][group][HEADLINE] for name, system in results["systems"].items()}
    best = _best_floor(results, Scope("groups", group), HEADLINE)
    floor = f"best floor {_number(best.mean)} ({best.name})"
    if not results["deltas"]:
        listed = ", ".join(f"{escaped(name)} {_with_interval(mean)}" for name, mean in means.items())
        return f"{title}: {NAMES[HEADLINE]} {listed}; {floor}."
    delta = results["deltas"]["groups"][group][HEADLINE]
    return (
        f"{title}: {NAMES[HEADLINE]} {_number(means[BASE]['mean'])} → {_number(means[TUNED]['mean'])}, difference "
        f"{_with_interval(delta, signed=True)}: **{_in_words(delta)}** (n = {delta['n']}; {floor})."
    )


def print_table(results: Results, console: Console) -> None:
    """Character F1 by category and group beside its floor, and how often answers ended; fits 80 columns."""
    table = Table(title="character F1 by task category", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for header in _terminal_headers(results):
        table.add_column(Text(header), justify="right", no_wrap=True)
    for group in GROUPS:
        for scope in _scopes(results, group):
            is_group = scope.kind == "groups"
            name = f"{scope.name}, all" if is_group else f" {scope.name}"
            # Text, because brackets in a plain string would be read as markup.
            cells = map(Text, (name, *_terminal_row(results, scope)))
            table.add_row(*cells, style="bold" if is_group else "", end_section=is_group)
    console.print(table)
    notes = "floor: the better of the question echoed and another row's reference; EOS: share that ended by themselves"
    console.print(Text(notes), style="dim")
    for group in ("open", "context"):
        console.print(Text(verdict(results, group).replace("**", "")))


def _terminal_headers(results: Results) -> list[str]:
    difference = ["difference"] if results["deltas"] else []
    return ["n", *results["systems"], *difference, "floor", "EOS"]


def _terminal_row(results: Results, scope: Scope) -> list[str]:
    systems = [system[scope.kind][scope.name] for system in results["systems"].values()]
    deltas = [results["deltas"][scope.kind][scope.name][HEADLINE]] if results["deltas"] else []
    cells = [
        str(results["rows"][scope.kind][scope.name]),
        *(_number(system[HEADLINE]["mean"]) for system in systems),
        *(_with_interval(delta, signed=True) for delta in deltas),
        _number(_best_floor(results, scope, HEADLINE).mean),
        _number(systems[-1]["eos_rate"]["mean"], digits=2),
    ]
    return [re.sub(r"\b0(?=\.)", "", cell) for cell in cells]  # .25 for 0.25, so that the table fits


def _scopes(results: Results, group: str) -> list[Scope]:
    """The group's categories that have rows, then the group; nothing for a group without rows."""
    if group not in results["rows"]["groups"]:
        return []
    present = [Scope("categories", c) for c in GROUPS[group] if c in results["rows"]["categories"]]
    return [*present, Scope("groups", group)]


def _score_table(results: Results, scopes: Sequence[Scope], metrics: Sequence[str]) -> str:
    systems, floors = results["systems"], results["floors"] if metrics[0] in TEXT_METRICS else {}
    deltas = results["deltas"]
    rows = []
    for metric in metrics:
        for scope in scopes:
            label = f"**{scope.name}, all**" if scope.kind == "groups" else scope.name
            row = [NAMES[metric], label, str(results["rows"][scope.kind][scope.name])]
            row += [_with_interval(system[scope.kind][scope.name][metric]) for system in systems.values()]
            if deltas:
                row.append(_with_interval(deltas[scope.kind][scope.name][metric], signed=True))
            row += [_number(floor[scope.kind][scope.name][metric]["mean"]) for floor in floors.values()]
            rows.append(row)
    difference = [f"{TUNED} − {BASE}"] if deltas else []
    header = [
        "metric",
        "category",
        "n",
        *map(escaped, systems),
        *difference,
        *(f"floor: {name}" for name in floors),
    ]
    return _table(header, rows, left=2)


def _answers_table(results: Results) -> str:
    keys = ("eos", "length", "error", "empty", "context_shortened")
    header = ["answers", "ended by itself", "cut at the limit", "failed", "empty", "context shortened"]
    rows = [[escaped(name), *(str(counts[key]) for key in keys)] for name, counts in results["answers"].items()]
    return _table(header, rows, left=1)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def _best_floor(results: Results, scope: Scope, metric: str) -> Floor:
    means = {name: floor[scope.kind][scope.name][metric]["mean"] for name, floor in results["floors"].items()}
    known = [Floor(mean, name) for name, mean in means.items() if mean is not None]
    return max(known, key=lambda floor: floor.mean or 0.0, default=Floor(None, "none"))


def _in_words(delta: Mapping[str, Any]) -> str:
    if delta["ci_low"] is None:
        return f"not decidable from {delta['n']} rows"
    if delta["ci_low"] > 0:
        return "better"
    if delta["ci_high"] < 0:
        return "worse"
    return f"no difference that {delta['n']} rows can show"


def _number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def _with_interval(estimate: Mapping[str, Any], signed: bool = False, digits: int = 3) -> str:
    """`0.394 [0.357, 0.431]`, the ends with so many digits; `[–]` for an interval that does not exist."""
    if estimate["mean"] is None:
        return NOTHING
    ends = [_number(estimate[end], signed, digits) for end in ("ci_low", "ci_high") if estimate[end] is not None]
    missing = f" ({estimate['missing']} not measured)" if estimate["missing"] else ""
    return f"{_number(estimate['mean'], signed)} [{', '.join(ends) or '–'}]{missing}"


def _samples(results: Results, predictions: Sequence[Prediction]) -> list[str]:
    answers: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        answers.setdefault(prediction.example.index, {})[prediction.system] = prediction
    scores: dict[str, dict[str, float]] = {}
    for row in results["samples"]:
        scores.setdefault(row["index"], {})[row["system"]] = row["scores"][HEADLINE]
    gains = {index: row[TUNED] - row[BASE] for index, row in scores.items() if {BASE, TUNED} <= row.keys()}
    order = sorted(gains, key=lambda index: (-gains[index], index))
    best = [index for index in order[:EXTREMES] if gains[index] > 0]
    worst = [index for index in order[::-1][:EXTREMES] if gains[index] < 0]
    rest = sorted(scores.keys() - {*best, *worst})
    seed = results["settings"]["bootstrap"]["seed"]
    drawn = random.Random(seed).sample(rest, min(RANDOM_SAMPLES, len(rest)))
    out = []
    for title, indices in (
        (f"Best gains in {NAMES[HEADLINE]}", best),
        (f"Worst regressions in {NAMES[HEADLINE]}", worst),
        (f"Random rows (seed {seed})", drawn),
    ):
        out.append(f"### {title}")
        out += [_sample(answers[index], scores[index]) for index in indices] or ["None."]
    return out


def _sample(answers: Mapping[str, Prediction], scores: Mapping[str, float]) -> str:
    example = next(iter(answers.values())).example
    change = f", {_number(scores[TUNED] - scores[BASE], signed=True)}" if {BASE, TUNED} <= scores.keys() else ""
    parts = [
        f"#### Row {escaped(example.index)} · {example.category}{change}",
        "Instruction",
        fenced(example.instruction, TEXT_SHOWN),
    ]
    if example.input.strip():
        parts += ["Context", fenced(example.input, CONTEXT_SHOWN)]
    parts += ["Reference", fenced("\n".join(example.references), TEXT_SHOWN)]
    for name in scores:
        answer = answers[name]
        note = f"{_number(scores[name])}, {answer.finish_reason}, {answer.output_tokens} tokens"
        parts += [f"**{escaped(name)}** ({NAMES[HEADLINE]} {note})", fenced(answer.text, TEXT_SHOWN)]
    return "\n\n".join(parts)


def _provenance(results: Results) -> list[str]:
    generation = results["settings"]["generation"]
    penalties = []
    for name, settings in generation.items():
        penalty, scope = (settings.get(key, NOTHING) for key in ("repetition_penalty", "repetition_penalty_scope"))
        penalties.append(f"{escaped(name)} {penalty} over {scope}")
    keys = sorted({key for settings in generation.values() for key in settings})
    rows = [[escaped(k), *(_setting(settings.get(k, NOTHING)) for settings in generation.values())] for k in keys]
    bootstrap = results["settings"]["bootstrap"]
    intervals = (
        f"Intervals: {bootstrap['confidence']:.0%} percentile bootstrap, {bootstrap['resamples']:,} resamples "
        f"of {bootstrap['clusters']}, seed {bootstrap['seed']}."
    )
    signatures = [[NAMES[metric], escaped(signature)] for metric, signature in results["metrics"].items()]
    return [
        f"Repetition penalty and its scope: {'; '.join(penalties)}.",
        _table(["generation", *map(escaped, generation)], rows, left=1),
        intervals,
        _table(["metric", "signature"], signatures, left=2),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
    ]


def _setting(value: Any) -> str:
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _caveats(results: Results) -> str:
    rows = results["rows"]
    name, least = min(rows["categories"].items(), key=lambda item: item[1])
    return f"""\
- {rows["total"]} rows in {rows["clusters"]} clusters of shared context; the smallest category is {name} with
  {least}. An interval that holds 0 says that the rows cannot show a difference, not that there is none. The
  intervals are not corrected for looking at many of them.
- A score at its floor shows no understanding, however large it looks: read each beside its floors.
- Overlap is not correctness: a bag of characters cannot tell 17回 from 71回.
- On dolly-ja, exact match and gold contained are near zero for any system, because question, context and
  answer were translated separately.
- An answer that failed scores 0; an answer cut at the limit is scored as it stands."""
