"""Answers to the same rows under several generation settings, scored: open against context by setting. No torch here.

A sweep's directory holds `sweep.json` ({"settings": [{key: value}, …], "predictions": [file, …]}, the same number of
both) and the prediction files, each with the answers of one or more systems to the same rows.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from eval.border import from_json
from eval.metrics.catalogue import EOS_RATE, FACTS_RECALL, GOLD_CONTAINED, HEADLINE, PARTICLE_SHARE, PUNCTUATION_SHARE
from eval.predictions import Prediction, examples_sha256, read_predictions
from eval.scoring.measured import Measured, measure
from eval.scoring.paired import differences, interaction
from eval.scoring.results import (
    NO_DIFFERENCE,
    NO_INTERACTION,
    ON_CONTEXT,
    ON_OPEN,
    Difference,
    GroupScores,
    Interaction,
    Limit,
    Results,
    RowCounts,
    best,
)
from eval.scoring.rows import Rows, column, rounded, rounded_number
from eval.scoring.score import results_of
from eval.statistics.estimates import Estimate, bootstrap_means, cluster_numbers
from sft.config.repetition_penalty import NO_PENALTY, PENALTY
from sft.data.records import DOLLY, Example, Group
from sft.run.provenance import Provenance, read_record
from sft.system.errors import UserError
from sft.system.files import file_sha256, read_json

SWEEP_VERSION = 1
BINS = 5
REPORTED = (HEADLINE, GOLD_CONTAINED, FACTS_RECALL, PARTICLE_SHARE, PUNCTUATION_SHARE, EOS_RATE)
"""What is kept of every setting's scores."""

PointGroup = Annotated[Group, BeforeValidator(lambda name: DOLLY.get(name, name))]
"""A row's group; sweeps of earlier versions hold its category, one of dolly's."""

Setting = dict[str, Any]
"""Generation keys and their values."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sweep:
    """Settings, and for each of them the predictions answered with it."""

    settings: list[Setting]
    predictions: list[list[Prediction]]
    about: Provenance | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """What a setting lost against the first: score(first) − score(setting), by group, and on context minus on open."""

    groups: dict[str, Difference]
    character_f1: Interaction | None
    """Under the headline metric's key; None unless both open and context rows were answered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """The mean of what rows lost whose share of the reference in the prompt is from `low` to `high`."""

    low: float
    high: float
    mean: float
    ci_low: float | None
    ci_high: float | None
    n: int
    missing: int


@dataclasses.dataclass(frozen=True, slots=True)
class Dose:
    """What rows lost from setting `first` to `second`, against the share of their reference in the prompt.

    A point is (share, lost, group).
    """

    first: int
    second: int
    points: list[tuple[float, float, PointGroup]]
    bins: list[Bin]


@dataclasses.dataclass(frozen=True, slots=True)
class SweptSystem:
    """One system's scores by setting. `interaction` is None for the first; so is `dose` where there is no other."""

    scores: list[GroupScores[Estimate]]
    interaction: list[Loss | None]
    floors: dict[str, Limit]
    dose: Dose | None

    def lost(self, at: int) -> tuple[Difference, Difference, Interaction]:
        """Lost by setting `at` on open rows, on context rows, and the second minus the first."""
        loss = self.interaction[at] or Loss({}, None)
        on_open, on_context = (loss.groups.get(scope.name, NO_DIFFERENCE) for scope in (ON_OPEN, ON_CONTEXT))
        return on_open, on_context, loss.character_f1 or NO_INTERACTION


@dataclasses.dataclass(frozen=True, slots=True)
class SweepResults:
    """What `sweep_results.json` holds. `keys` are those that vary between the settings; `about` as in `Results`."""

    schema_version: int
    resamples: int
    seed: int
    rows: RowCounts
    settings: list[Setting]
    keys: list[str]
    systems: dict[str, SweptSystem]
    rows_sha256: str = ""
    about: Provenance | None = None


def load_sweep(directory: Path) -> Sweep:
    """Read a sweep's directory. Raises UserError when it is not one, or its answers were made with other settings."""
    path = directory / "sweep.json"
    try:
        described = from_json(read_json(path), _Described)
        json.dumps(described.settings, allow_nan=False)
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: not a sweep ({error}); `python -m eval sweep RUN` makes one") from None
    settings, files = described.settings, described.predictions
    if len(settings) != len(files) or not files:
        raise UserError(f"{path}: needs as many predictions as settings, and at least one")
    for name in files:
        if Path(name).name != name or not (directory / name).is_file():
            raise UserError(f"{directory / name}: no such file, though {path} names it; sweep again")
    predictions = [list(read_predictions(directory / name)) for name in files]
    for name, setting, answers in zip(files, settings, predictions, strict=True):
        for answer in answers:
            key = _other_setting(setting, answer.generation)
            if key is not None:
                raise UserError(
                    f"{directory / name}: row {answer.example.named!r} was not answered with {key} {setting[key]!r}, "
                    f"which {path} gives for it; sweep again"
                )
    record = read_record(directory)
    for name in files:
        if record and record.files.get(name) != file_sha256(directory / name):
            raise UserError(f"{directory / name}: is not of the sweep that {directory} has begun since; sweep again")
    return Sweep(settings, predictions, record.provenance if record else None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Described:
    settings: list[Setting]
    predictions: list[str]


def _other_setting(setting: Setting, generation: Mapping[str, Any]) -> str | None:
    """The first key of the setting that the generation contradicts; None when there is none.

    Answers do not record what had no effect: a penalty of 1, and the temperature of greedy decoding.
    """
    greedy = {"temperature": 0.0} if generation.get("do_sample") is False else {}
    used = {PENALTY: NO_PENALTY, **greedy, **generation}
    return next((key for key, value in setting.items() if key in used and used[key] != value), None)


def varying(settings: Sequence[Setting]) -> list[str]:
    """Keys whose value differs between settings, or that some of them lack; in the order they were given."""
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    return [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]


def score_sweep(sweep: Sweep, resamples: int = 10_000, seed: int = 0) -> SweepResults:
    """Scores of every system by setting, and against the first setting; each answer is measured once.

    Raises UserError when the settings did not answer the same rows.
    """
    systems = list(dict.fromkeys(answer.system for answer in sweep.predictions[0]))
    together = []
    for at, answers in enumerate(sweep.predictions):
        found = sorted({answer.system for answer in answers})
        if found != sorted(systems):
            listed = f"{', '.join(found) or 'nobody'}, the first by {', '.join(sorted(systems))}"
            raise UserError(f"setting {at + 1} was answered by {listed}; sweep all settings with the same systems")
        together += [dataclasses.replace(answer, system=_key(answer.system, at)) for answer in answers]
    measured = measure(together, resamples, seed)
    results = results_of(measured)
    keys = {name: [_key(name, at) for at in range(len(sweep.settings))] for name in systems}
    return SweepResults(
        schema_version=SWEEP_VERSION,
        resamples=resamples,
        seed=seed,
        rows=results.rows,
        settings=list(sweep.settings),
        keys=varying(sweep.settings),
        systems={name: _system(measured, results, its_keys) for name, its_keys in keys.items()},
        rows_sha256=examples_sha256(sweep.predictions[0]),
        about=sweep.about,
    )


def _key(system: str, at: int) -> str:
    return f"{system} {at:03}"


def _system(measured: Measured, results: Results, keys: Sequence[str]) -> SweptSystem:
    """One system, which goes by `keys` under the settings."""
    by_setting = [results.systems[key].groups for key in keys]
    scores = [GroupScores({g: {m.key: s[m.key] for m in REPORTED} for g, s in groups.items()}) for groups in by_setting]
    losses = [None, *(_loss(measured, keys[0], key) for key in keys[1:])]
    context = [found.of(ON_CONTEXT, HEADLINE).mean for found in scores]
    worst = min(range(1, len(keys)), key=lambda at: 2.0 if (mean := context[at]) is None else mean, default=0)
    groups = [scope for scope in (ON_OPEN, ON_CONTEXT) if scope.name in results.rows.groups]
    return SweptSystem(
        scores=scores,
        interaction=losses,
        floors={scope.name: best(results.floors, scope, HEADLINE) for scope in groups},
        dose=_dose(measured, keys, worst) if worst else None,
    )


def _loss(measured: Measured, first: str, key: str) -> Loss:
    tables = measured.tables[key], measured.tables[first]
    groups = differences(measured.rows, *tables).groups
    changes = interaction(measured.rows, *tables)
    return Loss({name: found[HEADLINE.key] for name, found in groups.items()}, changes.get(HEADLINE.key))


def _dose(measured: Measured, keys: Sequence[str], worst: int) -> Dose:
    """Share of the reference in the prompt against the headline score lost from the first setting to `worst`."""
    scores = [measured.tables[key][:, column(HEADLINE.key)].tolist() for key in (keys[0], keys[worst])]
    rows = []
    for before, after, answer in zip(*scores, measured.answers[keys[0]], strict=True):
        if (share := answer.reference_tokens_in_prompt) is not None:
            rows.append((share, rounded_number(before) - rounded_number(after), answer.example))
    rows.sort(key=lambda row: (row[0], row[2].index))
    points = [(round(share, 4), round(lost, 4), example.group) for share, lost, example in rows]
    parts = [[rows[at] for at in part] for part in np.array_split(np.arange(len(rows)), BINS) if len(part)]
    return Dose(0, worst, points, [_bin(part, measured.rows) for part in parts])


def _bin(members: Sequence[tuple[float, float, Example]], rows: Rows) -> Bin:
    values = np.array([[lost] for _, lost, _ in members])
    clusters = cluster_numbers([example.input for *_, example in members])
    found = bootstrap_means(values, np.ones_like(values), clusters, rows.resamples, rows.seed)[0]
    return rounded(Bin(members[0][0], members[-1][0], **dataclasses.asdict(found)))
