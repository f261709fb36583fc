"""The two records that cross files: an `Example` of the data and a `Prediction` for it. No torch here."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from sft.errors import UserError

OPEN = ("open_qa", "general_qa")
CONTEXT = ("closed_qa", "information_extraction", "summarization")
OTHER = ("classification", "brainstorming", "creative_writing")
GROUPS: dict[str, tuple[str, ...]] = {"open": OPEN, "context": CONTEXT, "other": OTHER}
"""Reporting groups, in report order, and the dolly categories in each."""
CATEGORIES = OPEN + CONTEXT + OTHER
GROUP_OF = {category: group for group, categories in GROUPS.items() for category in categories}

FinishReason = Literal["eos", "length", "error"]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set in the dolly-ja schema.

    `input` is the context, empty where the row has none. `answers` holds every accepted answer of a
    question-answering benchmark; when it is empty, `output` is the only reference.
    """

    index: str
    instruction: str
    input: str
    output: str
    category: str
    answers: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """Every text that counts as a right answer, never empty."""
        return self.answers or (self.output,)


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """One system's answer to one example, with all that scoring needs. `None` means not measured.

    `reference_nll` is the sum of −ln p over the tokens of `example.output` (the end-of-text token
    left out), in nats, given the prompt; `reference_nll_without_context` the same given the prompt
    without its context. `reference_tokens_in_prompt` is the share (0–1) of the reference's tokens that
    already stand in the prompt. `training_overlap` is the length in characters of the longest passage
    the answer shares with a training output, the prompt's own text left out.
    """

    system: str
    example: Example
    prompt: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    generation: dict[str, Any]
    context_shortened: bool = False
    reference_tokens: int | None = None
    reference_nll: float | None = None
    reference_nll_without_context: float | None = None
    reference_tokens_in_prompt: float | None = None
    training_overlap: int | None = None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there complete or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write one JSON object a line, UTF-8, all or nothing."""
    lines = (json.dumps(dataclasses.asdict(prediction), ensure_ascii=False) for prediction in predictions)
    write_text(path, "".join(line + "\n" for line in lines))


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a jsonl file; a bad line is a `UserError` that names it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield prediction_from_json(json.loads(line.decode("utf-8")))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path}:{number}: not a prediction: {error}") from None


def prediction_from_json(row: dict[str, Any]) -> Prediction:
    """Build a `Prediction` from its JSON object. Raises ValueError or TypeError on a wrong one."""
    fields = dict(row)
    example = dict(fields.pop("example"))
    example["answers"] = tuple(example.get("answers", ()))
    prediction = Prediction(example=Example(**example), **fields)
    if prediction.finish_reason not in get_args(FinishReason):
        raise ValueError(f"finish_reason is {prediction.finish_reason!r}, not one of {get_args(FinishReason)}")
    if prediction.example.category not in CATEGORIES:
        raise ValueError(f"unknown category {prediction.example.category!r}; known: {', '.join(CATEGORIES)}")
    return prediction
