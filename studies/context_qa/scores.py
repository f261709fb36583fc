"""Row scores, the part of a study that is kept: every number of every answer, and no text. No torch here.

A file holds a system's answers to a set of rows. Its first line says what was asked; each further one is a row: its id,
[reference bits / character, the same without the context, share of the reference's tokens in the prompt], and for each
of the header's decodings the header's measures. The directory's rows/ has a file for each set: what does not depend on
a system, the floors among it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError

from eval.metrics.likelihood import reference_bits_per_character
from eval.predictions import Prediction, rows_sha256
from eval.scoring.rows import scopes_of
from eval.statistics.estimates import Array, Clusters, cluster_numbers
from sft.data.records import Example, Group
from sft.system.errors import UserError
from sft.system.files import read_bytes, write_whole
from studies.context_qa.measures import COMPARED, MEASURES, Encode, floors, measure
from studies.context_qa.plan import RowSet

SCHEMA_VERSION: Literal[1] = 1
DIGITS = 4
BITS, BITS_WITHOUT, SHARE = range(3)
"""Columns of `SystemScores.reference`."""


def clusters_of(rows: Iterable[tuple[str, object]]) -> Clusters:
    """(rows,) numbers of what is resampled, from each row's id and its context.

    JSQuAD's ids, `a1p2q3`, name the article that the paragraph is of; rows of one article are drawn together.
    """
    articles = [(re.fullmatch(r"(a\d+)p\d+q\d+", index), context) for index, context in rows]
    names = [article[1] if article else f"context {context}" for article, context in articles]
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


class Template(BaseModel, extra="forbid"):
    """Which prompt template it was."""

    name: str
    sha256: str


class TrainedWith(BaseModel, extra="forbid"):
    """The configuration's keys that decide what is learned, by section; None: the section is null."""

    data: dict[str, Any]
    quantization: dict[str, Any] | None
    lora: dict[str, Any] | None
    training: dict[str, Any]


class Training(BaseModel, extra="forbid"):
    """How a tuned system was trained: its settings, and what its manifest says."""

    settings: TrainedWith
    rows: int
    truncation: dict[str, dict[str, int]]
    """Category → what became of its rows, counted."""
    steps: int
    seconds: float | None
    device: str
    git_commit: str | None
    packages: dict[str, str]


class Header(BaseModel, extra="forbid"):
    """The first line of a system's scores."""

    schema_version: Literal[1]
    system: str
    rows: str
    rows_sha256: str
    shots: int
    model: str
    base: dict[str, str | None]
    learned_sha256: str | None
    dtype: str
    quantization: dict[str, Any] | None
    template: Template
    training: Training | None
    """None: untuned."""
    decodings: dict[str, dict[str, Any]]
    """Name → the settings that took effect."""
    measures: list[str]


class ScoredRow(NamedTuple):
    """A row that was asked, without its text: `context` is the number of its context, `length` of its reference."""

    id: str
    category: str
    group: Group
    context: int
    length: int


class RowsScores(NamedTuple):
    """A set of rows. `floors` holds a (rows, COMPARED) table by name."""

    header: dict[str, Any]
    rows: list[ScoredRow]
    floors: dict[str, Array]

    @property
    def clusters(self) -> Clusters:
        """(rows,) the number of what each row's text is part of: its context or, where the id names one, an article."""
        return clusters_of((row.id, row.context) for row in self.rows)

    @property
    def scopes(self) -> dict[str, list[int]]:
        """Row numbers of each category and group."""
        return {scope.name: at for scope, at in scopes_of(self.rows).items()}


class SystemScores(NamedTuple):
    """A system's answers to a set of rows: (rows, 3) of the `reference`, and a (rows, MEASURES) table by decoding."""

    header: Header
    reference: Array
    answers: dict[str, Array]


def write_rows(path: Path, examples: Sequence[Example], asked: RowSet) -> None:
    """Write the file of a set of rows, in their order; `asked` says which rows the study asks for."""
    limits = floors(examples)
    header = {"schema_version": SCHEMA_VERSION, "rows_sha256": rows_sha256(examples)}
    header |= {"categories": asked.categories, "rows": asked.rows}
    header |= {"floors": list(limits), "measures": list(COMPARED)}
    contexts = cluster_numbers([row.input for row in examples]).tolist()
    lines = (
        [row.index, row.category, row.group, context, len(row.output)]
        + [[_short(found[at][key]) for key in COMPARED] for found in limits.values()]
        for at, (row, context) in enumerate(zip(examples, contexts, strict=True))
    )
    _write(path, header, lines)


def read_rows(path: Path) -> RowsScores:
    """Read what `write_rows` wrote. Raises UserError for a file that is missing or damaged."""
    header, lines = _read(path)
    try:
        rows = [ScoredRow(*line[:5]) for line in lines]
        tables = [
            _table([line[5 + at] for line in lines], header["measures"], COMPARED)
            for at in range(len(header["floors"]))
        ]
    except (TypeError, ValueError, KeyError, IndexError):
        raise _damaged(path) from None
    return RowsScores(header, rows, dict(zip(header["floors"], tables, strict=True)))


def write_system(
    path: Path, rows: str, about: Mapping[str, Any], answers: Mapping[str, Sequence[Prediction]], encode: Encode
) -> None:
    """Score a system's answers by decoding, the same rows in the same order in each, and write their file.

    `about` says what answered, `rows` is the name of the set, `encode` the model's tokenizer. Measures that no row has
    are left out. Likelihoods are those of the decoding beside which they were measured.
    """
    scored = {name: [measure(one, rows, encode) for one in found] for name, found in answers.items()}
    present = [key for key in MEASURES if any(one[key] is not None for found in scored.values() for one in found)]
    decodings = {name: found[0].generation for name, found in answers.items()}
    header = Header(schema_version=SCHEMA_VERSION, **about, decodings=decodings, measures=present)
    lines = (
        [same[0].example.index, list(map(_short, _reference(same)))]
        + [[_short(found[at][key]) for key in present] for found in scored.values()]
        for at, same in enumerate(zip(*answers.values(), strict=True))
    )
    _write(path, header.model_dump(), lines)


def _reference(same: Sequence[Prediction]) -> list[float | None]:
    """What is measured of a row's reference, from its answers under all decodings."""
    one = next((prediction for prediction in same if prediction.reference_nll is not None), same[0])
    output = one.example.output
    nll = (one.reference_nll, one.reference_nll_without_context)
    return [*(reference_bits_per_character(found, output) for found in nll), one.reference_tokens_in_prompt]


def read_system(path: Path, rows: RowsScores) -> SystemScores:
    """Read what `write_system` wrote of these rows. Raises UserError for a damaged file, or one of other rows."""
    header, lines = _read_system(path)
    try:
        indexes = [line[0] for line in lines]
        reference = np.array([line[1] for line in lines], dtype=float)
        tables = [
            _table([line[2 + at] for line in lines], header.measures, MEASURES) for at in range(len(header.decodings))
        ]
    except (TypeError, ValueError, KeyError, IndexError):
        raise _damaged(path) from None
    if header.rows_sha256 != rows.header["rows_sha256"] or indexes != [row.id for row in rows.rows]:
        raise UserError(f"{path}: its rows are not those of the file in rows/; move it away, and answer them again")
    return SystemScores(header, reference, dict(zip(header.decodings, tables, strict=True)))


def read_header(path: Path) -> Header:
    """The first line of a system's scores. Raises UserError for a damaged file."""
    return _read_system(path)[0]


def _read_system(path: Path) -> tuple[Header, list[Any]]:
    header, lines = _read(path)
    try:
        return Header.model_validate(header), lines
    except ValidationError:
        raise _damaged(path) from None


def _short(value: float | None) -> float | None:
    """A number in as few characters as four digits take."""
    if value is None:
        return None
    short = round(float(value), DIGITS)
    return int(short) if short.is_integer() else short


def _write(path: Path, header: Mapping[str, Any], lines: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in (header, *lines)))


def _read(path: Path) -> tuple[dict[str, Any], list[Any]]:
    try:
        header, *lines = map(json.loads, read_bytes(path).decode().splitlines())
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION or not lines:
        raise _damaged(path)
    return header, lines


def _table(values: Sequence[Sequence[float | None]], names: Sequence[str], columns: Sequence[str]) -> Array:
    """(rows, columns), NaN where nothing was measured."""
    found = np.full((len(values), len(columns)), np.nan)
    found[:, [columns.index(name) for name in names]] = np.array(values, dtype=float)
    return found


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: is damaged or of another version; move it away, and its rows are answered again")
