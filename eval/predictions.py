"""One system's answer to one example, and the jsonl files that hold such answers. No torch here."""

import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from eval.border import from_json
from sft.data.records import Example, group_of
from sft.generation.settings import FinishReason
from sft.system.errors import UserError
from sft.system.files import parse_json, read_bytes, text_sha256, write_whole

BASE, TUNED = "base", "tuned"
SYSTEMS = (BASE, TUNED)
"""What answers in a run: its model before the tuning and after it."""
IN_RUN = Path("eval") / "predictions.jsonl"
"""Where a run's own answers are."""

_MOST = 10**9


def _likelihood(nll: float) -> float:
    if math.isfinite(nll) and not 0 <= nll <= _MOST:  # one that is not finite was not measured
        raise ValueError(f"{nll!r} is not between 0 and {_MOST:,}")
    return nll


def _json(values: dict[str, Any]) -> dict[str, Any]:
    json.dumps(values, allow_nan=False)  # a ValueError, as for all that has no place in results.json
    return values


Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Likelihood = Annotated[float, Field(strict=True), AfterValidator(_likelihood)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """One system's answer to one example, with all that scoring needs. `None` means not measured.

    `reference_nll` is the sum of −ln p over the tokens of `example.output` (the end-of-text token
    left out), in nats, given the prompt; `reference_nll_without_context` the same given the prompt
    without its context. `reference_tokens_in_prompt` is the share (0–1) of the reference's tokens that
    already stand in the prompt. `training_overlap` is the length in characters of the longest passage
    the answer shares with a training output, the prompt's own text left out. `shots` are the indexes of the training
    rows that stand in the prompt as examples.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    system: str
    example: Example
    prompt: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: Count
    output_tokens: Count
    generation: Annotated[dict[str, Any], AfterValidator(_json)]
    context_shortened: Annotated[bool, Field(strict=True)] = False
    reference_tokens: Count | None = None
    reference_nll: Likelihood | None = None
    reference_nll_without_context: Likelihood | None = None
    reference_tokens_in_prompt: Share | None = None
    training_overlap: Count | None = None
    shots: tuple[str, ...] = ()


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write one JSON object a line, UTF-8, all or nothing."""
    write_whole(path, _lines(predictions))


def predictions_sha256(predictions: Iterable[Prediction]) -> str:
    """Hash of the file that `write_predictions` writes."""
    return text_sha256(_lines(predictions))


def home_of(path: Path) -> Path:
    """The run that a file of answers is in, or the file itself."""
    whole = path.resolve()
    return whole.parents[1] if whole.parts[-2:] == IN_RUN.parts else whole


def run_name(path: Path) -> str:
    """Whose answers a file holds, by its place: runs/calm7b/eval/predictions.jsonl is calm7b, answers.jsonl answers."""
    if path.name != IN_RUN.name:
        return path.stem
    home = home_of(path)
    return home.parent.name if home.name == IN_RUN.name else home.name


def _lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    return (json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in predictions)


def rows_sha256(rows: Iterable[Example]) -> str:
    """Hash of rows, which tells them from all others."""
    return text_sha256(json.dumps(_told_apart(row), ensure_ascii=False) for row in rows)


def _told_apart(row: Example) -> list[Any]:
    # Rows as earlier versions knew them, without history and with the group that their category says, keep their hash.
    usual = not row.history and row.group == group_of(row.category, row.input)
    more = [] if usual else [row.group, row.history]
    return [row.index, row.instruction, row.input, row.output, row.category, row.answers, *more]


def examples_sha256(predictions: Iterable[Prediction]) -> str:
    """Hash of the rows that were answered, whoever answered them and in whatever order."""
    rows = {prediction.example.index: prediction.example for prediction in predictions}
    return rows_sha256(row for _, row in sorted(rows.items()))


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a jsonl file; blank lines are passed over.

    A line that is not a prediction (cut off, not UTF-8, a field missing, unknown or of the wrong type), a row of
    a system that comes twice and a file without predictions are a `UserError` that names file and line.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(io.BytesIO(read_bytes(path)), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            prediction = from_json(row, Prediction)
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


def _unreadable(line: bytes, error: UnicodeDecodeError | json.JSONDecodeError) -> str:
    cut = isinstance(error, json.JSONDecodeError) or error.reason == "unexpected end of data"
    if cut and not line.endswith(b"\n"):
        return "the last line is cut off; delete it or answer again"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8; write the file again in UTF-8"
    return f"not JSON: {error.msg} at character {error.pos + 1}"
