"""What a study's score files hold, by arm: row scores as arrays. No torch here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.metrics.catalogue import BY_KEY
from eval.statistics.estimates import Array
from sft.system.errors import UserError
from studies.context_qa.measures import LEAD, MEASURES, OWN
from studies.context_qa.plan import RowsName, Study, arm_of, units
from studies.context_qa.same_settings import check_scored
from studies.context_qa.scores import (
    BITS,
    BITS_WITHOUT,
    SHARE,
    Header,
    RowsScores,
    SystemScores,
    read_rows,
    read_system,
)

LIKELIHOOD = ("reference_bits_per_character", "context_gain")
COLUMNS = (*MEASURES, *LIKELIHOOD, "share")
"""What is known of a row under one decoding; `share` is that of the reference's tokens in the prompt."""

Key = tuple[str, RowsName, str]
"""Arm (or base), rows, decoding."""
BySeed = Mapping[int | None, Array]
"""Seed → values of all rows; the base model has no seed, and its values stand for every one."""


class Outcome(NamedTuple):
    """A measure of a category or group of a set of rows."""

    rows: RowsName
    scope: str
    metric: str

    @property
    def key(self) -> str:
        """`dolly.context.character_f1`."""
        return f"{self.rows}.{self.scope}.{self.metric}"


@dataclasses.dataclass(frozen=True)
class Material:
    """All that was scored: tables are (rows, COLUMNS). `missing` names the files that are not there, as system/rows."""

    study: Study
    rows: dict[RowsName, RowsScores]
    tables: dict[Key, dict[int | None, Array]]
    headers: dict[str, Header]
    """System → what its files say of it."""
    generation: dict[str, dict[str, Any]]
    """Decoding → settings as they took effect: without a penalty or a temperature, there is none."""
    missing: list[str]

    def members(self, outcome: Outcome) -> list[int] | None:
        """Row numbers of the outcome's category or group; None when no such row was answered."""
        return self.rows[outcome.rows].scopes.get(outcome.scope) if outcome.rows in self.rows else None

    def cell(
        self, outcome: Outcome, arm: str, decoding: str, metric: str = "", seeds: Sequence[int] = ()
    ) -> BySeed | None:
        """(rows,) scores by seed, of the outcome's metric or another; None where nothing was answered.

        `seeds`: only these, where there are any.
        """
        found, column = self.tables.get((arm, outcome.rows, decoding)), COLUMNS.index(metric or outcome.metric)
        return found and {s: table[:, column] for s, table in found.items() if not seeds or s in (None, *seeds)}

    def weights(self, outcome: Outcome) -> Array:
        """(rows,): 1, but the reference's length for what counts by its characters."""
        rows = self.rows[outcome.rows].rows
        return np.array([row.length if outcome.metric in LIKELIHOOD else 1 for row in rows], dtype=float)


def load(study: Study) -> Material:
    """Read the scores that there are.

    Raises UserError when there are none, or a file is damaged, of other rows, or of other settings than the study's.
    """
    rows: dict[RowsName, RowsScores] = {}
    tables: dict[Key, dict[int | None, Array]] = {}
    headers, generation, missing = {}, {}, []
    for unit in units(study):
        path = unit.scores(study)
        if not path.is_file():
            missing.append("/".join(unit))
            continue
        check_scored(study, unit)
        if unit.rows not in rows:
            rows[unit.rows] = read_rows(study.rows_scores(unit.rows))
        found = read_system(path, rows[unit.rows])
        headers[unit.system] = found.header
        arm, seed = arm_of(study, unit.system)
        for decoding in unit.decodings(study):
            generation[decoding] = found.header.decodings[decoding]
            tables.setdefault((arm, unit.rows, decoding), {})[seed] = _table(found, decoding)
    if not tables:
        raise UserError(f"{study.scores}: nothing has been scored yet; run the study without --report")
    return Material(study, rows, tables, headers, generation, missing)


def _table(found: SystemScores, decoding: str) -> Array:
    bits, without, share = (found.reference[:, [column]] for column in (BITS, BITS_WITHOUT, SHARE))
    return np.hstack([found.answers[decoding], bits, without - bits, share])


def metric_name(key: str) -> str:
    """What readers see for a column."""
    if key.startswith(LEAD):
        return f"{metric_name(key.removeprefix(LEAD))} of a lead as long"
    return OWN.get(key) or ("share of the reference in the prompt" if key == "share" else BY_KEY[key].name)
