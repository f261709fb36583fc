"""Systems of several runs over the same rows: paired differences against the first. No torch here."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from eval.predictions import Prediction, read_predictions
from eval.render.blocks import Block, Cell, Heading, Table, paragraph
from eval.render.html import render_html
from eval.render.markdown import render_markdown
from eval.render.terminal import Row, narrow, print_rows
from eval.report.score_tables import score_cell
from eval.report.view import (
    HEADLINE,
    TUNED,
    Results,
    Scope,
    all_scopes,
    estimate,
    interval,
    measured,
    name_of,
    number,
    p_value,
    rows_in,
    with_interval,
)
from eval.scoring.paired import paired
from eval.scoring.score import score
from sft.system.errors import UserError
from sft.system.files import output_directory, write_whole

SCHEMA_VERSION = 1
METRICS = ("character_f1", "rouge_l", "gold_contained", "exact_match", "facts_recall", "reference_bits_per_character")
PREDICTIONS = Path("eval") / "predictions.jsonl"


class Answered(NamedTuple):
    """One system's answers, the name it goes by here, and the file they came from."""

    name: str
    source: Path
    predictions: list[Prediction]


def read_answered(specs: Sequence[str], system: str = TUNED) -> list[Answered]:
    """Read `RUN`, `FILE`, `RUN:system` or `FILE:system`, each one system's answers; `system` where none is named.

    They go by the run's or file's name, with the system and then the whole path where that alone would not tell them
    apart. Raises UserError for what is not there.
    """
    found = []
    for spec in specs:
        path, chosen = _source(spec, system)
        predictions = list(read_predictions(path))
        own = [prediction for prediction in predictions if prediction.system == chosen]
        if not own:
            known = ", ".join(dict.fromkeys(prediction.system for prediction in predictions)) or "none"
            raise UserError(f"{path}: no answers of system {chosen!r}; it has {known}; choose one with {path}:SYSTEM")
        found.append((_run_name(path), chosen, path, own))
    names = [name for name, *_ in found]
    plain = len(set(names)) == len(names)
    labels = [name if plain else f"{name}:{chosen}" for name, chosen, *_ in found]
    if len(set(labels)) < len(labels):  # runs of one name in two places
        labels = [f"{path}:{chosen}" for _, chosen, path, _ in found]
    repeated = [label for at, label in enumerate(labels) if label in labels[:at]]
    if repeated:
        raise UserError(f"{repeated[0]} is given twice; give different runs, files or systems")
    return [Answered(label, path, own) for label, (_, _, path, own) in zip(labels, found, strict=True)]


def check_same_rows(answered: Sequence[Answered]) -> None:
    """Raise UserError, with how many rows differ, unless all answered the same questions."""
    first = answered[0]
    rows = {prediction.example.index: prediction.example for prediction in first.predictions}
    for other in answered[1:]:
        others = {prediction.example.index: prediction.example for prediction in other.predictions}
        alone = sorted(rows.keys() ^ others.keys())
        changed = sorted(index for index in rows.keys() & others.keys() if rows[index] != others[index])
        if alone or changed:
            raise UserError(
                f"{first.name} ({len(rows)} rows) and {other.name} ({len(others)} rows) did not answer the same rows: "
                f"{len(alone)} are in one only, {len(changed)} have another text under the same index "
                f"(for example {[*alone, *changed][0]!r}); answer the same rows with both"
            )


def compare(answered: Sequence[Answered], resamples: int, seed: int) -> dict[str, Any]:
    """Means of every system and paired differences (each − the first), as comparison.json holds them."""
    check_same_rows(answered)
    renamed = [[dataclasses.replace(p, system=a.name) for p in a.predictions] for a in answered]
    results = score([prediction for part in renamed for prediction in part], resamples, seed)
    names = [a.name for a in answered]
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": results["settings"],
        "sources": {a.name: {"file": a.source.name, "system": a.predictions[0].system} for a in answered},
        "rows": results["rows"],
        "answers": {name: results["answers"][name] for name in names},
        "systems": {name: results["systems"][name] for name in names},
        "floors": results["floors"],
        "differences": {
            name: paired(renamed[0], part, resamples, seed) for name, part in zip(names[1:], renamed[1:], strict=True)
        },
    }


def comparison_blocks(comparison: Results) -> list[Block]:
    """The comparison as a document."""
    first, *others = comparison["systems"]
    blocks: list[Block] = [
        Heading(1, f"Comparison with {first}"),
        paragraph(
            f"{comparison['rows']['total']} rows answered by all. Differences are paired, each system minus {first}; p "
            "is corrected (Holm) within each comparison, not over several of them."
        ),
    ]
    for name in others:
        found = comparison["differences"][name]
        change = estimate({"groups": {"both": found.get("interaction", {})}}, Scope("groups", "both"), HEADLINE)
        if change["mean"] is not None:
            text = f"{name}: the difference on context minus that on open is {with_interval(change, signed=True)} in "
            blocks.append(paragraph(f"{text}{name_of(HEADLINE)}, p {p_value(change['p'])}."))
    scopes = all_scopes(comparison)
    for metric in measured(comparison, scopes, METRICS):
        blocks += [Heading(2, name_of(metric)), _table(comparison, scopes, metric)]
    settings = comparison["settings"]["generation"]
    keys = sorted({key for values in settings.values() for key in values})
    rows = [[key, *(json.dumps(settings[n].get(key), ensure_ascii=False) for n in (first, *others))] for key in keys]
    return [*blocks, Heading(2, "Generation settings"), Table(["setting", first, *others], rows, left=1)]


def print_comparison(comparison: Results, console: Console) -> None:
    """Character F1 of every system and its difference from the first, by category and group."""
    first, *others = comparison["systems"]
    for name in others:
        rows = []
        for scope in all_scopes(comparison):
            means = [estimate(comparison["systems"][n], scope, HEADLINE)["mean"] for n in (first, name)]
            delta = estimate(comparison["differences"][name], scope, HEADLINE)
            change = f"{number(delta['mean'], signed=True)} {interval(delta, signed=True)}".strip()
            cells = [str(rows_in(comparison, scope)), *map(number, means), change, p_value(delta["p_holm"])]
            rows.append(Row(scope.label, cells, scope.kind == "groups"))
        title = f"{name_of(HEADLINE)}: {narrow(name, 24)} against {narrow(first, 24)}"
        print_rows(title, ["n", first, name, "difference", "Holm p"], rows, console)


def compare_runs(specs: Sequence[str], output: Path | None, resamples: int, seed: int, console: Console) -> Path:
    """Compare, write comparison.{json,md,html} and print the table; returns the directory written to."""
    if len(specs) < 2:
        raise UserError("there is nothing to compare: give two runs or more")
    answered = read_answered(specs)
    comparison = compare(answered, resamples, seed)
    names = "-".join(file_name(a.name) for a in answered[1:])
    directory = output_directory(output or answered[0].source.parent / f"compare-{names}")
    blocks = comparison_blocks(comparison)
    text = json.dumps(comparison, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    for name, content in (("json", text), ("md", render_markdown(blocks)), ("html", render_html(blocks))):
        write_whole(directory / f"comparison.{name}", content)
    print_comparison(comparison, console)
    return directory


def file_name(name: str) -> str:
    """A system's name as part of a file's; it may be a path, or hold anything."""
    return re.sub(r"[:/\\\0]", "-", name).strip("-")


def _source(spec: str, system: str) -> tuple[Path, str]:
    path, chosen = Path(spec), system
    if not path.exists() and ":" in spec:
        before, _, chosen = spec.rpartition(":")
        path = Path(before)
    if path.is_dir():
        path = path / PREDICTIONS if (path / PREDICTIONS).is_file() else path / PREDICTIONS.name
    if not path.is_file():
        raise UserError(f"{spec}: no predictions there; `python -m eval RUN` writes them, or give a predictions.jsonl")
    return path, chosen


def _run_name(path: Path) -> str:
    """runs/calm7b/eval/predictions.jsonl is calm7b, answers.jsonl is answers."""
    if path.name != PREDICTIONS.name:
        return path.stem
    directory = path.resolve().parent
    return directory.parent.name if directory.name == PREDICTIONS.parent.name else directory.name


def _table(comparison: Results, scopes: Sequence[Scope], metric: str) -> Table:
    first, *others = comparison["systems"]
    header = ["category", "n", first]
    for name in others:
        header += [name, "difference", "p (Holm)"]
    rows: list[list[str | Cell]] = []
    for scope in scopes:
        row: list[str | Cell] = [scope.label, str(rows_in(comparison, scope)), _mean(comparison, first, scope, metric)]
        for name in others:
            delta = estimate(comparison["differences"][name], scope, metric)
            row += [_mean(comparison, name, scope, metric), score_cell(delta, signed=True), p_value(delta["p_holm"])]
        rows.append(row)
    strong = frozenset(at for at, scope in enumerate(scopes) if scope.kind == "groups")
    return Table(header, rows, left=1, strong=strong)


def _mean(comparison: Mapping[str, Any], system: str, scope: Scope, metric: str) -> Cell:
    return score_cell(estimate(comparison["systems"][system], scope, metric))
