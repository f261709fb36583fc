"""The answers of one or several systems to the same rows, checked, and every metric of each. No torch here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eval.metrics.memorised import Overlap, longest_overlaps
from eval.predictions import SYSTEMS, Prediction
from eval.scoring.rows import Rows, RowScores, check_same_rows, in_row_order, row_scores, table
from eval.statistics.estimates import Array
from sft.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Measured:
    """Answers to the same rows, each measured once. By system, base and tuned first, then in the order of `rows`.

    `overlaps` with the training outputs are there when those were given, `tables` are (rows, METRICS).
    """

    rows: Rows
    answers: dict[str, list[Prediction]]
    generation: dict[str, dict[str, Any]]
    overlaps: dict[str, list[Overlap]]
    scores: dict[str, list[RowScores]]
    tables: dict[str, Array]


def measure(
    predictions: Sequence[Prediction],
    resamples: int = 10_000,
    seed: int = 0,
    training_outputs: Mapping[str, str] | None = None,
) -> Measured:
    """Measure answers to the same rows; `training_outputs` (index → text) are what they are searched for.

    Without those, the overlaps that the predictions hold count. Raises `UserError` when the predictions do not
    belong together.
    """
    answers = by_system(predictions)
    generation = {name: _generation(name, its_answers) for name, its_answers in answers.items()}
    overlaps = {} if training_outputs is None else _overlaps(answers, training_outputs)
    for name, found in overlaps.items():
        pairs = zip(answers[name], found, strict=True)
        answers[name] = [dataclasses.replace(answer, training_overlap=one.length) for answer, one in pairs]
    rows = Rows([answer.example for answer in next(iter(answers.values()))], resamples, seed)
    scores = {name: list(map(row_scores, its_answers)) for name, its_answers in answers.items()}
    tables = {name: table(its_scores) for name, its_scores in scores.items()}
    return Measured(rows, answers, generation, overlaps, scores, tables)


def by_system(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Each system's answers in row order, base and tuned first. Raises UserError unless all answered the same rows."""
    if not predictions:
        raise UserError("there are no predictions to score; answer some rows first")
    found: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        answers = found.setdefault(prediction.system, {})
        index = prediction.example.index
        if index in answers:
            raise UserError(f"row {index!r} of system {prediction.system!r} appears twice; keep one of the answers")
        answers[index] = prediction
    names = sorted(found, key=lambda name: (SYSTEMS.index(name) if name in SYSTEMS else len(SYSTEMS), name))
    for other in names[1:]:
        check_same_rows(found[names[0]], found[other], (names[0], other))
    return {name: in_row_order(found[name].values()) for name in names}


def _generation(system: str, answers: Sequence[Prediction]) -> dict[str, Any]:
    """The settings that a system's answers were generated with. Raises UserError when they are not one."""
    first = answers[0]
    for answer in answers:
        if answer.generation != first.generation:
            keys = answer.generation.keys() | first.generation.keys()
            key = min(k for k in keys if answer.generation.get(k) != first.generation.get(k))
            raise UserError(
                f"system {system!r} mixes generation settings: {key} is {first.generation.get(key)!r} for row "
                f"{first.example.named!r} and {answer.generation.get(key)!r} for row {answer.example.named!r}; "
                "score them as two systems"
            )
    return dict(sorted(first.generation.items()))


def _overlaps(
    by_system: Mapping[str, Sequence[Prediction]], training_outputs: Mapping[str, str]
) -> dict[str, list[Overlap]]:
    """The longest overlap of each answer. The row's own texts count as its prompt, shown whole or not."""
    answers = [answer for answers in by_system.values() for answer in answers]
    texts = ["" if answer.finish_reason == "error" else answer.text for answer in answers]
    prompts = ["\n".join((answer.prompt, answer.example.instruction, answer.example.input)) for answer in answers]
    found = iter(longest_overlaps(texts, prompts, training_outputs))
    return {name: [next(found) for _ in answers] for name, answers in by_system.items()}
