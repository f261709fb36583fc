"""What a benchmark is: where its rows are, how one becomes a row of this project, and whose metrics score it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sft.data.files.raw import BadRow

SHORT_ANSWERS = (
    "generation.temperature=0",
    "generation.repetition_penalty=1.0",
    "generation.max_new_tokens=64",
    "eval.brief=true",
)
"""How benchmarks ask whose answers are a few words."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A benchmark's row as it is asked: `choices` are the answers that are given, empty where the model writes its own.

    `output` is the reference, one of the choices where there are any, and `answers` are further ones. `index` is None
    where the row has none.
    """

    instruction: str
    input: str
    output: str
    answers: tuple[str, ...] = ()
    index: str | None = None
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A published benchmark."""

    name: str
    """On the command line, and of the directory with its results."""
    title: str
    hub: str
    """Data set on the hub, and below which configuration (None: it has one) and split of it."""
    subset: str | None = None
    split: str
    item: Callable[[Mapping[str, Any]], Item]
    """Its row. Raises BadRow for one that cannot be used."""
    form: str
    """The columns of a row, in words."""
    settings: tuple[str, ...]
    """How its answers are asked for unless somebody says otherwise, as `section.key=value`."""
    metrics: Mapping[str, str]
    """Keys of the metrics, and whose each is ("": this project's). The first decides what is said, unless there is no
    score."""
    scored: bool = True
    """Whether answers can be scored without a person or another model."""
    chance: float | None = None
    """What guessing scores in the first metric; None: nothing worth the name."""


def field(row: Mapping[str, Any], *names: str) -> str:
    """The text in the first of some columns that a row has. Raises BadRow without one, or for what is no text."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        raise BadRow(f"no {names[0]}")
    if not isinstance(value, str):
        raise BadRow(f"{names[0]} is not text")
    if not value.strip():
        raise BadRow(f"empty {names[0]}")
    return value


def answers_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row's accepted answers: its `answers`, or the one in `output`. Raises BadRow as `texts` and `field` do."""
    return texts(row["answers"]) if row.get("answers") else (field(row, "output"),)


def texts(value: Any) -> tuple[str, ...]:
    """Accepted answers however they are written: a list of texts, SQuAD's mapping or list of mappings, each once.

    Raises BadRow for anything else, or none.
    """
    if isinstance(value, Mapping):
        value = value.get("text")
    found = [one.get("text") if isinstance(one, Mapping) else one for one in value] if isinstance(value, list) else []
    said = [one for one in found if isinstance(one, str) and one.strip()]
    if not said or len(said) < len(found):
        raise BadRow("answers are no texts" if value else "no answers")
    return tuple(dict.fromkeys(said))


def name_of(row: Mapping[str, Any], *names: str) -> str | None:
    """A row's own id, as text; None without one."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    return None if value is None else str(value)
