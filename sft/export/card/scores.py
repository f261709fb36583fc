"""The run's evaluation as its model card shows it."""

import operator
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from sft.data.records import DOLLY, GROUPS, category_label
from sft.run.manifest import FinishedManifest
from sft.run.provenance import Provenance, file_lines_sha256
from sft.system.errors import UserError, warn
from sft.system.files import read_json
from sft.system.texts import text
from sft.system.visible import escaped

METRICS = ("character_f1", "rouge_l")


class Evaluation(NamedTuple):
    """Held-out rows, the settings they were answered with, and a table's cells by metric."""

    rows: int
    answered_with: str
    tables: dict[str, list[list[str]]]


def read_evaluation(run: Path, manifest: FinishedManifest) -> Evaluation | None:
    """The run's evaluation, as it was trained, on its held-out rows; None where there is none.

    Scores of anything else are not the run's: a warning says why they are left out. Raises UserError for damaged ones.
    """
    path = run / "eval" / "results.json"
    if not path.is_file():
        return None
    results = read_json(path)
    try:
        if reasons := _not_published(path, results, manifest):
            why = ", ".join(reasons)
            command = f"python -m eval {shlex.quote(str(run))} --force"
            warn([f"{path}: is about {why}; the card is without scores until {command}"])
            return None
        return evaluation_of(results)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: is damaged; evaluate the run again, or move the file away") from None


def _not_published(path: Path, results: Mapping[str, Any], manifest: FinishedManifest) -> list[str]:
    """What else the scores are about than the run's own answers to the rows that it held out."""
    if results.get("about") is None:
        return ["answers of which nothing says whose they are"]
    about = TypeAdapter(Provenance).validate_python(results["about"])
    answers = path.with_name("predictions.jsonl")
    changed = not answers.is_file() or file_lines_sha256(answers) != results["predictions"]
    return about.not_of(manifest) + ["other answers than those beside it"] * changed


def evaluation_of(results: Mapping[str, Any]) -> Evaluation:
    """What the card shows of an evaluation's results.json."""
    known, under = results["systems"]["tuned"], results["rows"].get("under", DOLLY)  # earlier versions: dolly's alone
    scopes = [
        (kind, scope)
        for group in GROUPS
        for kind, names in (("groups", [group]), ("categories", list(known["categories"])))
        for scope in names
        if scope in known[kind] and (kind == "groups" or under[scope] == group)
    ]
    generation = results["settings"]["generation"]["tuned"]
    return Evaluation(
        rows=operator.index(results["rows"]["total"]),
        answered_with=", ".join(f"{key} {value}" for key, value in generation.items()),
        tables={_title(metric): [_cells(results, *scope, metric) for scope in scopes] for metric in METRICS},
    )


def _scope(group: str) -> str:
    return "**" + text("card.all_of", group=group) + "**"


def _title(metric: str) -> str:
    return text("metric.character_f1") if metric == "character_f1" else "ROUGE-L"


def _cells(results: Mapping[str, Any], kind: str, scope: str, metric: str) -> list[str]:
    def found(table: Mapping[str, Any]) -> Mapping[str, Any]:
        return table.get(kind, {}).get(scope, {}).get(metric) or {}

    def shown(table: Mapping[str, Any], sign: str = "") -> str:
        estimate = found(table)
        if estimate.get("mean") is None:
            return "–"
        mean = f"{estimate['mean']:{sign}.3f}"
        if estimate.get("ci_low") is None:
            return mean
        return f"{mean} [{estimate['ci_low']:{sign}.3f}, {estimate['ci_high']:{sign}.3f}]"

    means = {name: found(table).get("mean") for name, table in results["floors"].items()}
    floors = {name: mean for name, mean in means.items() if mean is not None}
    best = max(floors, key=lambda name: floors[name], default=None)
    systems = results["systems"]
    return [
        _scope(scope) if kind == "groups" else escaped(category_label(scope)),
        f"{systems['tuned'][kind][scope][metric]['n']:d}",
        shown(systems.get("base", {})),
        shown(systems["tuned"]),
        shown(results["deltas"], "+"),
        f"{floors[best]:.3f} ({escaped(best)})" if best else "–",
    ]
