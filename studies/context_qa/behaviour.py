"""How the recipe's answers are made: did they end, how long are they, what recurs in them. No torch here.

Particles and punctuation recur in any normal text, so a penalty could starve an answer of them, and a long one most.
"""

from typing import Any

import numpy as np

from eval.scoring.rows import column
from eval.statistics.estimates import Array
from studies.context_qa.answers import Material
from studies.context_qa.estimates import Outcome, mean_over, members, plain_mean, score_of
from studies.context_qa.plan import RowsName

THIRDS = 3
F1 = "character_f1"
BEHAVIOUR = ("eos_rate", "length_ratio", "particle_share", "punctuation_share", "rep_4")
STYLE = ("particle_share", "punctuation_share", "rep_4")
SCOPES: tuple[tuple[RowsName, str], ...] = (
    ("dolly", "open"),
    ("dolly", "context"),
    ("dolly", "other"),
    ("jsquad", "context"),
    ("niilc", "open"),
)
LENGTHS: tuple[tuple[int, int | None], ...] = ((0, 40), (40, 120), (120, None))
"""Lengths of answers in characters, from (exclusive) and to (inclusive)."""


def behaviour(material: Material) -> dict[str, Any]:
    """How the recipe's answers are made under each decoding: by group, by length of the reference and of the answer."""
    study = material.study
    groups = {}
    for name, scope in SCOPES:
        outcomes = [Outcome(name, "groups", scope, metric) for metric in BEHAVIOUR]
        if members(material, outcomes[0]) is None:
            continue
        groups[f"{name}.{scope}"] = {
            "reference": {o.metric: _own(material, o) for o in outcomes},
            "decodings": {
                d: {o.metric: score_of(material, o, study.recipe, d) for o in outcomes} for d in study.decodings
            },
        }
    return {
        "groups": groups,
        "reference_thirds": _reference_thirds(material) if "dolly" in material.rows else [],
        "answer_lengths": _answer_lengths(material) if "dolly" in material.rows else [],
    }


def _own(material: Material, outcome: Outcome) -> float | None:
    """The references' own mean, None for what is measured against them."""
    at = members(material, outcome)
    return None if at is None else plain_mean(material.rows[outcome.rows].own[at, column(outcome.metric)])


def _reference_thirds(material: Material) -> list[dict[str, Any]]:
    """dolly's rows in three parts by the length of the reference, so that the rows are the same for all decodings."""
    rows, study = material.rows["dolly"], material.study
    lengths = np.array([len(example.output.strip()) for example in rows.examples])
    found = []
    for part in np.array_split(np.argsort(lengths, kind="stable"), THIRDS):
        if not len(part):
            continue
        at = [int(row) for row in part]
        decodings: dict[str, Any] = {}
        for decoding in study.decodings:
            answers = material.answers.get((study.recipe, "dolly", decoding))
            decodings[decoding] = answers and {
                metric: mean_over(answers.mean[:, column(metric)], at, rows.clusters, study.resamples)
                for metric in (*STYLE, F1)
            }
        found.append(
            {
                "characters": [int(lengths[at[0]]), int(lengths[at[-1]])],
                "n": len(at),
                "reference": {metric: plain_mean(rows.own[at, column(metric)]) for metric in STYLE},
                "decodings": decodings,
            }
        )
    return found


def _answer_lengths(material: Material) -> list[dict[str, Any]]:
    """dolly's answers by their own length, all seeds together, beside the references of that length."""
    rows, study = material.rows["dolly"], material.study
    lengths = np.array([len(example.output.strip()) for example in rows.examples])
    found = []
    for low, high in LENGTHS:
        decodings: dict[str, Any] = {}
        for decoding in study.decodings:
            answers = material.answers.get((study.recipe, "dolly", decoding))
            decodings[decoding] = None
            if answers:
                table, characters = np.vstack(answers.tables), np.concatenate(answers.characters)
                clusters = np.tile(rows.clusters, len(answers.tables))
                at = [int(row) for row in np.flatnonzero(_between(characters, low, high))]
                decodings[decoding] = {"n": len(at)} | {
                    metric: mean_over(table[:, column(metric)], at, clusters, study.resamples) for metric in STYLE
                }
        own = np.flatnonzero(_between(lengths, low, high))
        reference = {"n": len(own)} | {metric: plain_mean(rows.own[own, column(metric)]) for metric in STYLE}
        found.append({"above": low, "to": high, "reference": reference, "decodings": decodings})
    return found


def _between(values: Array, low: int, high: int | None) -> Any:
    return (values > low) & (values <= (np.inf if high is None else high))
