"""What a listing says of each run: its state, its configuration held against the others', its scores, its size.

A run may be damaged, or come from elsewhere: what cannot be read of it is said, and stops nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from sft.config.load import load_config
from sft.config.sections import Config
from sft.run.directory import is_being_trained
from sft.run.manifest import FinishedManifest, Manifest, read_manifest
from sft.run.provenance import Provenance
from sft.system.command_line import as_typed
from sft.system.errors import UserError
from sft.system.files import directory_size, read_json

PARTS = ("manifest.json", "config.yaml", "checkpoints", "adapter", "model")
"""A directory that has one of these is, or was, a run."""
ELSEWHERE = ("model.base", "model.build", "data.path", "run.directory")
"""Keys that say what a run is, and are not among its settings; those of section `eval` change nothing of it."""
METRIC = "character_f1"

State = Literal["running", "stopped", "finished", "damaged"]


class Run(NamedTuple):
    """One run, as far as it can be read."""

    name: str
    state: State
    steps: str
    """Done and planned: "40/120"."""
    base: str
    data: str
    changed: list[str]
    """Settings, as on the command line, that most of the listed runs have otherwise."""
    scores: dict[str, float]
    """Mean character F1 of the tuned model by group, of its evaluation on the rows it held out."""
    size: int
    """Bytes."""
    problem: str = ""
    """What could not be read."""


def read_runs(directory: Path) -> list[Run]:
    """The runs right below a directory, the newest last. Raises UserError where there is none."""
    found = [path for path in directory.glob("[!.]*") if any((path / part).exists() for part in PARTS)]
    if not found and (directory / "manifest.json").is_file():
        raise UserError(f"{directory}: is a run itself; give the directory that it is in: {directory.parent}")
    if not found:
        command = as_typed("accelerate launch train_sft.py configs/calm7b-4bit.yaml")
        raise UserError(
            f"{directory}: no run here; train one: {command}"
        )
    configs: dict[Path, Config] = {}
    manifests: dict[Path, Manifest] = {}
    problems: dict[Path, str] = {}
    for path in found:
        try:
            manifests[path] = read_manifest(path)
            configs[path] = load_config(path / "config.yaml", to_train=False)
        except UserError as error:
            problems[path] = str(error)
    found.sort(key=lambda path: (manifests[path].started if path in manifests else "", path.name))
    changed = changed_settings([(path.name, configs[path]) for path in found if path in configs])
    return [
        _run(path, manifests.get(path), configs.get(path), changed.get(path.name, []), problems.get(path, ""))
        for path in found
    ]


def _run(path: Path, manifest: Manifest | None, config: Config | None, changed: list[str], problem: str) -> Run:
    state: State = "damaged"
    if isinstance(manifest, FinishedManifest):
        state = "finished"
    elif manifest:
        state = "running" if is_being_trained(path) else "stopped"
    scores: dict[str, float] = {}
    if isinstance(manifest, FinishedManifest):
        try:
            scores = read_scores(path, manifest)
        except UserError as error:
            problem = problem or str(error)
    return Run(
        name=path.name,
        state=state,
        steps=f"{steps_done(path, manifest):,}/{manifest.steps:,}" if manifest else "",
        base=short(config.model.base) if config else "",
        data=", ".join(short(source.path) for source in config.data.sources) if config else "",
        changed=changed,
        scores=scores,
        size=directory_size(path),
        problem=problem,
    )


def short(name: str) -> str:
    """A hub id as it is; of a path on this machine its last part."""
    return Path(name).name if Path(name).is_absolute() else name


def steps_done(run: Path, manifest: Manifest) -> int:
    """Optimizer steps that a run has done, by its manifest or the last whole line of its log."""
    if isinstance(manifest, FinishedManifest):
        return manifest.kept.of if manifest.kept else manifest.steps
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return max((int(json.loads(line)["step"]) for line in lines if line.endswith("}")), default=0)
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def changed_settings(configs: Sequence[tuple[str, Config]]) -> dict[str, list[str]]:
    """By run, the settings that most of the runs have otherwise; of values as frequent, the earlier run's is usual."""
    flat = {name: dict(_settings(config)) for name, config in configs}
    changed: dict[str, list[str]] = {name: [] for name in flat}
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        values = {name: settings.get(key, "null") for name, settings in flat.items()}
        usual = Counter(values.values()).most_common(1)[0][0]
        for name, value in values.items():
            if value != usual:
                changed[name].append(f"{key}={value}")
    return changed


def _settings(config: Config) -> Iterator[tuple[str, str]]:
    for section, values in config.model_dump(exclude={"eval", "run"}).items():
        if not isinstance(values, dict):
            yield section, json.dumps(values)
            continue
        for key, value in values.items():
            if f"{section}.{key}" not in ELSEWHERE:
                yield f"{section}.{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Estimate(BaseModel):
    mean: float | None = None


class _System(BaseModel):
    groups: dict[str, dict[str, _Estimate]]


class _Results(BaseModel):
    """What a listing needs of an evaluation's results.json (docs/evaluation.md)."""

    systems: dict[str, _System]
    about: Any = Field(None)


def read_scores(run: Path, manifest: FinishedManifest) -> dict[str, float]:
    """Mean character F1 of the tuned model by group; {} without an evaluation of this run, as it was trained.

    Raises UserError where there is one that cannot be read.
    """
    path = run / "eval" / "results.json"
    if not path.is_file():
        return {}
    try:
        results = _Results.model_validate(read_json(path))
        if results.about and TypeAdapter(Provenance).validate_python(results.about).not_of(manifest):
            return {}
    except ValidationError as error:
        raise UserError(f"{path}: is not an evaluation's results ({error.errors()[0]['msg']})") from None
    groups = results.systems["tuned"].groups if "tuned" in results.systems else {}
    means = {group: metrics[METRIC].mean for group, metrics in groups.items() if METRIC in metrics}
    return {group: mean for group, mean in means.items() if mean is not None}
