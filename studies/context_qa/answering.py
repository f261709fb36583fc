"""The study's systems answer its rows, and what they said is scored."""

import functools
import gc
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.answering.answer import answer_under
from eval.predictions import BASE, TUNED, Prediction, read_predictions, rows_sha256
from sft.config.load import load_config
from sft.generation.settings import effective_settings
from sft.prompt.encode import encode_answer
from sft.run.manifest import FinishedManifest, read_manifest
from sft.system.errors import UserError
from sft.system.processes import RANK
from studies.context_qa.models import Model, open_model
from studies.context_qa.pace import Clock, say
from studies.context_qa.plan import GREEDY, RowsName, Study, Unit, changed_setting
from studies.context_qa.rows import Asked, check_held_out
from studies.context_qa.same_settings import asked_with, trained_with
from studies.context_qa.scores import read_rows, write_rows, write_system

Answered = dict[str, list[Prediction]]
"""Decoding → the answers to all rows, in their order."""


def answer(study: Study, rows: Mapping[RowsName, Asked], left: Sequence[Unit]) -> None:
    """Answer and score what is `left`; a model is loaded once for all that it answers.

    Raises UserError when a file of answers or of scores holds other rows or settings than the study has, and when a
    system was trained on one of the rows, before anything is answered.
    """
    for name in dict.fromkeys(unit.rows for unit in left):
        write_rows_once(study, name, rows[name])
    held_out = [row for name, wanted in study.rows.items() if not wanted.path for row in rows[name].examples]
    for system in dict.fromkeys(unit.system for unit in left if unit.system in study.trained()):
        check_held_out(study, *study.trained()[system], held_out)
    missing = {unit: [d for d in unit.decodings(study) if d not in answered(study, unit, rows)] for unit in left}
    clock = Clock(sum(len(rows[unit.rows].examples) * len(decodings) for unit, decodings in missing.items()))
    for system, members in itertools.groupby(left, key=lambda unit: unit.system):
        model = model_of(study, system)
        load = functools.cache(model.load)
        for unit in members:
            asked = rows[unit.rows]
            if missing[unit]:
                say(f"answering {system}, {unit.rows}, {', '.join(missing[unit])}: {len(asked.examples)} rows")
                settings = {
                    unit.answers(study, name): model.config.generation | study.decodings[name] for name in missing[unit]
                }
                unit.answers(study, GREEDY).parent.mkdir(parents=True, exist_ok=True)
                # No report has likelihoods behind examples, whose prompts are the longest.
                likelihoods = GREEDY in missing[unit] and not asked.shots
                side = TUNED if system in study.trained() else BASE
                answer_under(load(), asked.examples, settings, [side], likelihoods, shots=asked.shots)
                say(clock.add(len(asked.examples) * len(missing[unit])))
            if RANK == 0:
                score(study, unit, model, answered(study, unit, rows))
        del load
        gc.collect()  # a model is full of cycles, and two may not fit


def model_of(study: Study, system: str) -> Model:
    """A system's model. Raises UserError when it was trained on another base model than the study has."""
    untuned = open_model(Path(study.config), [*study.common, *study.untuned.get(system, [])])
    if system not in study.trained():
        return untuned
    run, base = study.run(*study.trained()[system]), untuned.config.model.base
    manifest = read_manifest(run)
    if untuned.base != (manifest.base_commit, manifest.base_sha256):
        raise UserError(f"{run}: was trained on another base model than {base}; move it, or set directory=…")
    return open_model(run, [*study.common, f"model.base={json.dumps(base)}"])


def write_rows_once(study: Study, name: RowsName, asked: Asked) -> None:
    """Write the file of a set of rows where there is none. Raises UserError where there is one of other rows."""
    path = study.rows_scores(name)
    if path.is_file():
        if read_rows(path).header["rows_sha256"] != rows_sha256(asked.examples):
            raise UserError(f"{path}: its rows are not those of rows.{name}; move it away, or set scores=…")
    elif RANK == 0:
        write_rows(path, asked.examples, study.rows[name])


def answered(study: Study, unit: Unit, rows: Mapping[RowsName, Asked]) -> Answered:
    """What a unit has of answers. Raises UserError for a file of other rows, or settings, than the study has now."""
    found: Answered = {}
    asked = rows[unit.rows]
    generation = asked_with(study, unit.system).generation
    places = {row.index: at for at, row in enumerate(asked.examples)}
    for name in unit.decodings(study):
        path = unit.answers(study, name)
        if not path.is_file():
            continue
        predictions = sorted(read_predictions(path), key=lambda one: places.get(one.example.index, -1))
        changed = changed_setting(predictions[0].generation, effective_settings(generation | study.decodings[name]))
        if [len(one.shots) for one in predictions] != [*map(len, asked.shots or [[]] * len(predictions))]:
            changed = f"rows.{unit.rows}.shots is {study.rows[unit.rows].shots}"
        if [one.example for one in predictions] != asked.examples:
            changed = f"its rows are not those of rows.{unit.rows}"
        if changed:
            raise UserError(f"{path}: was answered otherwise: {changed}; move it away, or set directory=…")
        found[name] = predictions
    return found


def score(study: Study, unit: Unit, model: Model, answers: Answered) -> None:
    """Write a unit's scores."""
    shots = study.rows[unit.rows].shots
    rows = [one.example for one in answers[GREEDY]]
    trained = study.trained().get(unit.system)
    training = _training(study.run(*trained)) if trained else None
    about = {"system": unit.system, "rows": unit.rows, "rows_sha256": rows_sha256(rows), "shots": shots}
    about |= model.described | {"training": training}
    encode = functools.partial(encode_answer, model.tokenizer)
    write_system(unit.scores(study), unit.rows, about, answers, encode)


def _training(run: Path) -> dict[str, object]:
    """What a finished training's configuration and manifest tell."""
    manifest = read_manifest(run)
    assert isinstance(manifest, FinishedManifest)
    return {
        "settings": trained_with(load_config(run / "config.yaml", to_train=False)),
        "rows": manifest.rows.train,
        "truncation": manifest.rows.truncation,
        "steps": manifest.steps,
        "seconds": manifest.seconds,
        "device": manifest.device,
        "git_commit": manifest.environment.git_commit,
        "packages": manifest.environment.packages,
    }
