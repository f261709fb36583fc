"""A sweep over generation settings, scored and reported: open against context by setting. No torch here.

A sweep's directory holds `sweep.json` ({"settings": [{key: value}, …], "predictions": [file, …]}, the same number of
both) and the prediction files, each with the answers of one or more systems to the same rows.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from eval.predictions import Prediction, read_predictions
from eval.render.blocks import Block, Cell, Heading, Table, paragraph
from eval.render.html import render_html
from eval.render.markdown import render_markdown
from eval.render.terminal import Row, print_rows
from eval.report.score_tables import score_cell
from eval.report.sweep_figures import dose_figure, sweep_figure, varying
from eval.report.view import HEADLINE, Results, Scope, best_floor, estimate, interval, name_of, number, p_value
from eval.scoring.paired import paired
from eval.scoring.score import score
from eval.statistics.estimates import bootstrap_means, cluster_numbers
from sft.config.repetition_penalty import NO_PENALTY, PENALTY, setting_label
from sft.system.errors import UserError
from sft.system.files import read_json, write_whole

SCHEMA_VERSION = 1
BINS = 5
COLUMNS = (
    ("open", "gold_contained"), ("context", "gold_contained"), ("context", "facts_recall"),
    ("context", "particle_share"), ("context", "punctuation_share"), ("open", "eos_rate"), ("context", "eos_rate"),
)  # fmt: skip
_METRICS = (HEADLINE, *dict.fromkeys(metric for _, metric in COLUMNS))


class Sweep(NamedTuple):
    """Settings, and for each of them the predictions answered with it."""

    settings: list[dict[str, Any]]
    predictions: list[list[Prediction]]


def load_sweep(directory: Path) -> Sweep:
    """Read a sweep's directory. Raises UserError when it is not one, or its answers were made with other settings."""
    path = directory / "sweep.json"
    try:
        described = read_json(path)
        json.dumps(described, allow_nan=False)
        settings, files = described["settings"], described["predictions"]
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a sweep ({error}); `python -m eval sweep RUN` makes one") from None
    if not isinstance(settings, list) or not isinstance(files, list) or len(settings) != len(files) or not files:
        raise UserError(f"{path}: needs as many predictions as settings, and at least one")
    if not all(isinstance(setting, dict) for setting in settings):
        raise UserError(f"{path}: every setting has to be an object of generation keys and values")
    for name in files:
        if Path(str(name)).name != name or not (directory / name).is_file():
            raise UserError(f"{directory / str(name)}: no such file, though {path} names it; sweep again")
    predictions = [list(read_predictions(directory / str(name))) for name in files]
    for name, setting, answers in zip(files, settings, predictions, strict=True):
        for answer in answers:
            key = _other_setting(setting, answer.generation)
            if key is not None:
                raise UserError(
                    f"{directory / str(name)}: row {answer.example.index!r} was not answered with "
                    f"{key} {setting[key]!r}, which {path} gives for it; sweep again"
                )
    return Sweep(settings, predictions)


def _other_setting(setting: Mapping[str, Any], generation: Mapping[str, Any]) -> str | None:
    """The first key of the setting that the generation contradicts; None when there is none.

    Answers do not record what had no effect: a penalty of 1, and the temperature of greedy decoding.
    """
    greedy = {"temperature": 0.0} if generation.get("do_sample") is False else {}
    used = {PENALTY: NO_PENALTY, **greedy, **generation}
    return next((key for key, value in setting.items() if key in used and used[key] != value), None)


def score_sweep(
    settings: Sequence[dict[str, Any]], predictions: Sequence[Sequence[Prediction]], resamples: int, seed: int
) -> dict[str, Any]:
    """Scores of every system by setting, and against the first setting, as `sweep_results.json` holds them.

    `interaction[i]` is [score(first) − score(setting i)] on context minus the same on open, with what each group
    lost; None for the first. Raises UserError when the settings did not answer the same rows.
    """
    parts: list[dict[str, list[Prediction]]] = []
    for answers in predictions:
        parts.append({})
        for answer in answers:
            parts[-1].setdefault(answer.system, []).append(answer)
    systems = list(parts[0])
    for at, part in enumerate(parts):
        if set(part) != set(systems):
            listed = f"{', '.join(sorted(part)) or 'nobody'}, the first by {', '.join(sorted(systems))}"
            raise UserError(f"setting {at + 1} was answered by {listed}; sweep all settings with the same systems")
    together = [
        dataclasses.replace(answer, system=_key(name, at))
        for at, part in enumerate(parts)
        for name, answers in part.items()
        for answer in answers
    ]
    results = score(together, resamples, seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "resamples": resamples,
        "seed": seed,
        "rows": results["rows"],
        "settings": list(settings),
        "keys": varying(settings),
        "systems": {name: _system(results, name, [part[name] for part in parts], resamples, seed) for name in systems},
    }


def sweep_blocks(sweep: Results) -> list[Block]:
    """Table and figures of a scored sweep, system by system, to stand inside a report."""
    blocks: list[Block] = []
    for place, name in enumerate(sweep["systems"]):
        scores = sweep["systems"][name]
        blocks += [Heading(3, f"By setting: {name}"), _headline_table(sweep, scores), paragraph(_reading(sweep))]
        blocks += [sweep_figure(sweep, name, place), *dose_figure(sweep, name, place), _table(sweep, scores)]
    return blocks


def report_sweep(directory: Path, resamples: int, seed: int, console: Console) -> Path:
    """Score the sweep in `directory`; write sweep_results.json, sweep.md and sweep.html there; print the table."""
    sweep = load_sweep(directory)
    results = score_sweep(sweep.settings, sweep.predictions, resamples, seed)
    text = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    blocks: list[Block] = [Heading(1, "Generation settings, open against context"), *sweep_blocks(results)]
    html = directory / "sweep.html"
    for path, content in (
        (directory / "sweep_results.json", text),
        (directory / "sweep.md", render_markdown(blocks)),
        (html, render_html(blocks)),
    ):
        write_whole(path, content)
    _print(results, console)
    return html


def scored_sweep(directory: Path) -> Results | None:
    """What `report_sweep` left in `directory`, or None when there is nothing of this version."""
    path = directory / "sweep_results.json"
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        return None
    try:
        sweep_blocks(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise UserError(f"{path}: is damaged; `python -m eval sweep {directory}` makes it again") from None
    return found


def _key(system: str, at: int) -> str:
    return f"{system} {at:03}"


def _system(
    results: Results, name: str, parts: Sequence[Sequence[Prediction]], resamples: int, seed: int
) -> dict[str, Any]:
    keys = [_key(name, at) for at in range(len(parts))]
    scores = [
        {
            "groups": {
                group: {m: found.get(m) for m in _METRICS} for group, found in results["systems"][key]["groups"].items()
            }
        }
        for key in keys
    ]
    losses = [None, *(_loss(paired(part, parts[0], resamples, seed)) for part in parts[1:])]
    context = [estimate(found, Scope("groups", "context"), HEADLINE)["mean"] for found in scores]
    worst = min(range(1, len(parts)), key=lambda at: 2.0 if (mean := context[at]) is None else mean, default=0)
    groups = [group for group in ("open", "context") if group in results["rows"]["groups"]]
    return {
        "scores": scores,
        "interaction": losses,
        "floors": {group: best_floor(results, Scope("groups", group), HEADLINE)._asdict() for group in groups},
        "dose": _dose(results, parts[0], keys, worst, resamples, seed) if worst else None,
    }


def _loss(found: Mapping[str, Any]) -> dict[str, Any]:
    groups = {name: scores.get(HEADLINE) for name, scores in found["groups"].items()}
    return {"groups": groups, HEADLINE: found["interaction"].get(HEADLINE)}


def _dose(
    results: Results, answers: Sequence[Prediction], keys: Sequence[str], worst: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Share of the reference in the prompt against the headline score lost from the first setting to `worst`."""
    by_system: dict[str, dict[str, float]] = {keys[0]: {}, keys[worst]: {}}
    for row in results["samples"]:
        if row["system"] in by_system and row["scores"].get(HEADLINE) is not None:
            by_system[row["system"]][row["index"]] = row["scores"][HEADLINE]
    before, after = by_system.values()
    rows = [
        (answer.reference_tokens_in_prompt, before[i] - after[i], answer.example)
        for answer in sorted(answers, key=lambda answer: answer.example.index)
        if (i := answer.example.index) in before and answer.reference_tokens_in_prompt is not None
    ]
    rows.sort(key=lambda row: row[0])
    bins = []
    for part in np.array_split(np.arange(len(rows)), BINS):
        members = [rows[at] for at in part]
        if members:
            values = np.array([[lost] for _, lost, _ in members])
            clusters = cluster_numbers([example.input for *_, example in members])
            found = bootstrap_means(values, np.ones_like(values), clusters, resamples, seed)[0]
            ends = {"low": members[0][0], "high": members[-1][0]}
            bins.append(_rounded(ends | dataclasses.asdict(found)))
    points = [[round(share, 4), round(lost, 4), example.category] for share, lost, example in rows]
    return {"first": 0, "second": worst, "points": points, "bins": bins}


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def _headline_table(sweep: Results, scores: Results) -> Table:
    """The headline metric by setting, and what each setting lost against the first."""
    header = [
        "setting",
        f"{name_of(HEADLINE)}, open",
        "context",
        "lost on open",
        "lost on context",
        "context − open",
        "p",
    ]
    rows: list[list[str | Cell]] = []
    for at, setting in enumerate(sweep["settings"]):
        found = [estimate(scores["scores"][at], Scope("groups", group), HEADLINE) for group in ("open", "context")]
        change = _changes(scores, at)
        cells = [*map(score_cell, found), *(score_cell(value, signed=True) for value in change)]
        rows.append([setting_label(setting, sweep["keys"]), *cells, p_value(change[-1]["p"])])
    return Table(header, rows, left=1)


def _table(sweep: Results, scores: Results) -> Table:
    """Correctness and behaviour by setting."""
    header = ["setting", *(f"{name_of(metric)}, {group}" for group, metric in COLUMNS)]
    rows: list[list[str | Cell]] = []
    for at, setting in enumerate(sweep["settings"]):
        found = [estimate(scores["scores"][at], Scope("groups", group), metric) for group, metric in COLUMNS]
        rows.append([setting_label(setting, sweep["keys"]), *map(score_cell, found)])
    return Table(header, rows, left=1)


def _changes(scores: Results, at: int) -> list[Results]:
    """Lost on open, lost on context, and the second minus the first; nothing is measured for the first setting."""
    loss = scores["interaction"][at] or {"groups": {}}
    parts = {"open": loss["groups"].get("open"), "context": loss["groups"].get("context"), "both": loss.get(HEADLINE)}
    return [estimate({"groups": {g: {HEADLINE: v}}}, Scope("groups", g), HEADLINE) for g, v in parts.items()]


def _reading(sweep: Results) -> str:
    first = setting_label(sweep["settings"][0], sweep["keys"])
    return (
        f"Lost: {name_of(HEADLINE)} under ({first}) minus under the row's setting, paired. Context − open above 0: the "
        "setting costs context questions more than open ones; p is of that difference alone, not corrected for the "
        "number of settings."
    )


def _print(sweep: Results, console: Console) -> None:
    for name, scores in sweep["systems"].items():
        rows = []
        for at, setting in enumerate(sweep["settings"]):
            both = [
                number(estimate(scores["scores"][at], Scope("groups", g), HEADLINE)["mean"])
                for g in ("open", "context")
            ]
            change = _changes(scores, at)[-1]
            lost = f"{number(change['mean'], signed=True)} {interval(change, signed=True, digits=2)}".strip()
            ended = number(estimate(scores["scores"][at], Scope("groups", "context"), "eos_rate")["mean"], digits=2)
            cells = [*both, lost if at else "first", p_value(change["p"]), ended]
            rows.append(Row(setting_label(setting, sweep["keys"]), cells))
        title = f"{name_of(HEADLINE)} of {name} by {', '.join(sweep['keys']) or 'setting'}"
        print_rows(title, ["open", "context", "ctx − open", "p", "EOS"], rows, console)
