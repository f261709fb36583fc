"""One system's answer to one example, and the jsonl files that hold such answers. No torch here."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sft.data.records import CATEGORIES, Example
from sft.generation.settings import FinishReason
from sft.system.errors import UserError
from sft.system.files import parse_json, write_whole

MEASURED = {
    "prompt_tokens": 10**9,
    "output_tokens": 10**9,
    "reference_tokens": 10**9,
    "reference_nll": 10**9,
    "reference_nll_without_context": 10**9,
    "reference_tokens_in_prompt": 1,
    "training_overlap": 10**9,
}
"""A prediction's numbers and the most that each can be; none is below 0."""


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


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write one JSON object a line, UTF-8, all or nothing."""
    lines = (json.dumps(dataclasses.asdict(prediction), ensure_ascii=False) for prediction in predictions)
    write_whole(path, (line + "\n" for line in lines))


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a jsonl file; blank lines are passed over.

    A line that is not a prediction (cut off, not UTF-8, a field missing, unknown or of the wrong type), a row of
    a system that comes twice and a file without predictions are a `UserError` that names file and line.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            prediction = prediction_from_json(parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8")))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}:{number}: {_unreadable(line, error)}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a prediction: {error}") from None
        key = (prediction.system, prediction.example.index)
        if key in seen:
            raise UserError(
                f"{path}:{number}: row {key[1]!r} of system {key[0]!r} appears twice, first in line {seen[key]}; "
                "keep one of the answers"
            )
        seen[key] = number
        yield prediction
    if not seen:
        raise UserError(f"{path}: holds no prediction; answer some rows first")


def prediction_from_json(row: Any) -> Prediction:
    """Build a `Prediction` from its JSON object. Raises ValueError, with a message for people, on a wrong one."""
    fields = _checked(row, Prediction, "")
    example = _checked(fields["example"], Example, "example.")
    if example["category"] not in CATEGORIES:
        raise ValueError(f"unknown category {example['category']!r}; known: {', '.join(CATEGORIES)}")
    for name in MEASURED:
        _check_range(fields.get(name), name)
    example["answers"] = tuple(example.get("answers", ()))
    return Prediction(**{**fields, "example": Example(**example)})


def _check_range(value: float | None, name: str) -> None:
    """Raise ValueError for a number that no measurement gives. A likelihood that is not finite was not measured."""
    unmeasured = name.startswith("reference_nll") and isinstance(value, float) and not math.isfinite(value)
    if value is None or unmeasured:
        return
    most = MEASURED[name]
    if not 0 <= value <= most:  # NaN is not, either
        raise ValueError(f"{name} is {value!r:.20}, not between 0 and {most:,}")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot be read: it is not a file")
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _unreadable(line: bytes, error: UnicodeDecodeError | json.JSONDecodeError) -> str:
    cut = isinstance(error, json.JSONDecodeError) or error.reason == "unexpected end of data"
    if cut and not line.endswith(b"\n"):
        return "the last line is cut off; delete it or answer again"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8; write the file again in UTF-8"
    return f"not JSON: {error.msg} at character {error.pos + 1}"


def _checked(row: Any, record: type, prefix: str) -> dict[str, Any]:
    """`row` with the keys and JSON types of the record's fields, or ValueError."""
    if not isinstance(row, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the line'} is {_json_type(row)}, not an object")
    fields = {field.name: field for field in dataclasses.fields(record)}
    for name in row:
        if name not in fields:
            raise ValueError(f"unknown field {prefix}{name!s}; known: {', '.join(fields)}")
    hints = get_type_hints(record)
    for name, field in fields.items():
        if name in row:
            _check_type(row[name], hints[name], prefix + name)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"no field {prefix}{name}")
    return dict(row)


def _check_type(value: Any, hint: Any, name: str) -> None:
    """Raise ValueError unless the JSON value is what the annotation says."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} is {value!r}, not one of {', '.join(get_args(hint))}")
    elif hint == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"{name} is not a list of texts")
    elif hint == dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {_json_type(value)}, not an object")
        json.dumps(value, allow_nan=False)  # a ValueError, as for all that has no place in results.json
    elif hint is not Example:  # which is checked by itself
        allowed = get_args(hint) or (hint,)
        accepted = (*allowed, int) if float in allowed else allowed
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in allowed):
            kinds = " or ".join(_JSON_TYPES[kind] for kind in allowed)
            raise ValueError(f"{name} is {_json_type(value)}, not {kinds}")


_JSON_TYPES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def _json_type(value: Any) -> str:
    return _JSON_TYPES[type(value)]
