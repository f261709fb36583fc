"""Every answer of the study as arrays of scores, row by row. No torch here."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.metrics.catalogue import OWN_METRICS
from eval.predictions import BASE, Prediction, read_predictions
from eval.scoring.rows import Rows, check_same_rows, in_row_order, row_scores, table, text_table
from eval.scoring.score import limit_tables
from eval.statistics.estimates import Array
from sft.system.errors import UserError
from studies.context_qa.plan import RowsName, Study, cells, changed_setting

SEED = 0
"""Of resampling and shuffled references."""

Key = tuple[str, RowsName, str]
"""Arm (or base), rows, decoding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRows(Rows):
    """A set of rows with all that does not depend on a model's answer. Tables are (rows, METRICS)."""

    share: Array
    """(rows,) share of the reference's tokens that stand in the prompt."""
    limits: dict[str, Array]
    """The floors and the oracle sentence."""
    own: Array
    """The references' own values of the metrics that need no reference."""


class Answers(NamedTuple):
    """An arm's answers to a set of rows under one decoding: a (rows, METRICS) table for each seed."""

    tables: list[Array]
    characters: list[Array]
    """(rows,) length of the answers, for each seed."""
    generation: dict[str, Any]

    @property
    def mean(self) -> Array:
        """(rows, METRICS), the mean over the seeds in which the metric was measured."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            return np.nanmean(np.stack(self.tables), axis=0)


@dataclasses.dataclass(frozen=True)
class Material:
    """All that was answered. `missing` names the files that were not, as system/rows/decoding."""

    study: Study
    rows: dict[RowsName, StudyRows]
    answers: dict[Key, Answers]
    missing: list[str]


def load(study: Study) -> Material:
    """Read and score what was answered; an arm counts as answered when all of its seeds are there.

    Raises UserError when nothing was answered, or files that should hold the same rows, prompts or settings do not.
    """
    found: dict[Key, dict[Path, list[Prediction]]] = {}
    missing = []
    arms = {name: arm for name, (arm, _) in study.trained().items()} | {BASE: BASE}
    for cell in cells(study):
        path, key = cell.path(study), (arms[cell.system], cell.rows, cell.decoding)
        found.setdefault(key, {})
        if path.is_file():
            found[key][path] = in_row_order(_one_system(path))
        else:
            missing.append("/".join(cell))
    wanted = {key: 1 if key[0] == BASE else len(study.seeds) for key in found}
    found = {key: files for key, files in found.items() if len(files) == wanted[key]}
    if not found:
        raise UserError(f"{study.root}: nothing has been answered yet; run the study without --report")
    _check(study, found)
    first: dict[RowsName, list[Prediction]] = {}
    for (_, name, _), files in found.items():
        first.setdefault(name, next(iter(files.values())))
    answers = {key: _answers(list(files.values())) for key, files in found.items()}
    return Material(study, {name: _rows(study, predictions) for name, predictions in first.items()}, answers, missing)


def _one_system(path: Path) -> list[Prediction]:
    predictions = list(read_predictions(path))
    names = sorted({prediction.system for prediction in predictions})
    if len(names) > 1:
        raise UserError(f"{path}: holds the answers of {' and '.join(names)}; a file of the study holds one system's")
    return predictions


def _check(study: Study, found: Mapping[Key, Mapping[Path, Sequence[Prediction]]]) -> None:
    """The same rows and prompts in all files of a set of rows, the study's settings in all files of a decoding."""
    rows: dict[str, tuple[Path, Sequence[Prediction]]] = {}
    settings: dict[str, tuple[Path, dict[str, Any]]] = {}
    for (_, name, decoding), files in found.items():
        for path, predictions in files.items():
            first_path, first = rows.setdefault(name, (path, predictions))
            one, other = ({p.example.index: p for p in side} for side in (first, predictions))
            check_same_rows(one, other, (str(first_path), str(path)))
            if any(one[index].prompt != other[index].prompt for index in one):
                raise UserError(f"{path}: its prompts are not those of {first_path}; answer both with one template")
            first_path, generation = settings.setdefault(decoding, (path, predictions[0].generation))
            if any(p.generation != generation for p in predictions):
                raise UserError(
                    f"{path}: its generation settings are not those of {first_path}; answer one of them again"
                )
            if changed := changed_setting(generation, study.decodings[decoding]):
                raise UserError(f"{path}: was answered otherwise than the study says: {changed}; answer it again")


def _rows(study: Study, predictions: Sequence[Prediction]) -> StudyRows:
    examples = [prediction.example for prediction in predictions]
    share = np.array([prediction.reference_tokens_in_prompt for prediction in predictions], dtype=float)
    own = text_table([example.output for example in examples], examples, OWN_METRICS)
    limits = limit_tables(Rows(examples, seed=SEED))
    return StudyRows(examples, study.resamples, SEED, share=share, limits=limits, own=own)


def _answers(seeds: Sequence[Sequence[Prediction]]) -> Answers:
    tables = [table([row_scores(p) for p in predictions]) for predictions in seeds]
    characters = [np.array([len(p.text.strip()) for p in predictions], dtype=float) for predictions in seeds]
    return Answers(tables, characters, dict(sorted(seeds[0][0].generation.items())))
