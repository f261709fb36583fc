"""The numbers of the study's report, as results.json holds them: what was not run is null. No torch here.

No text of a row is in them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.predictions import BASE
from eval.scoring.paired import interaction
from eval.scoring.rows import column, nested, rounded
from eval.statistics.estimates import holm, rank_correlation
from sft.config.repetition_penalty import SCOPE
from sft.data.files.sources import SUFFIXES
from sft.data.records import CATEGORIES
from studies.context_qa.answers import SEED, Answers, Material
from studies.context_qa.behaviour import behaviour
from studies.context_qa.estimates import (
    Outcome,
    effect,
    limits,
    mean_over,
    members,
    plain_mean,
    position,
    ratio,
    score_of,
)
from studies.context_qa.plan import GREEDY, Study

SCHEMA_VERSION = 1
FIFTHS = 5
F1, GOLD = "character_f1", "gold_contained"

CONTEXT_F1, OPEN_F1 = Outcome("dolly", "groups", "context", F1), Outcome("dolly", "groups", "open", F1)
JSQUAD_GOLD, JSQUAD_F1 = (Outcome("jsquad", "groups", "context", metric) for metric in (GOLD, F1))
NIILC_GOLD = Outcome("niilc", "groups", "open", GOLD)
FACTORIAL = (JSQUAD_GOLD, JSQUAD_F1, CONTEXT_F1, OPEN_F1)
SWEPT = (*FACTORIAL, NIILC_GOLD)
ARM_OUTCOMES = (
    JSQUAD_GOLD, JSQUAD_F1, Outcome("jsquad", "groups", "context", "exact_match"), NIILC_GOLD, CONTEXT_F1, OPEN_F1,
    *(Outcome("dolly", "categories", category, F1) for category in CATEGORIES),
    Outcome("dolly", "groups", "context", "eos_rate"), Outcome("jsquad", "groups", "context", "eos_rate"),
)  # fmt: skip
LIKELIHOOD = (
    Outcome("dolly", "groups", "open", "reference_bits_per_character"),
    Outcome("dolly", "groups", "context", "reference_bits_per_character"),
    Outcome("dolly", "groups", "context", "context_gain"),
    Outcome("jsquad", "groups", "context", "reference_bits_per_character"),
    Outcome("jsquad", "groups", "context", "context_gain"),
)


def analyse(material: Material, trainings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the tables and figures show. `trainings` is what is known of each training, or null."""
    study = material.study
    factorial = {outcome.key: _factorial(material, outcome) for outcome in FACTORIAL}
    losses = {arm: _losses(material, arm) for arm in full_arms(study)}
    return {
        "schema_version": SCHEMA_VERSION,
        "study": _described(study),
        "settings": {"seed": SEED, "resamples": study.resamples, "clusters": "rows with one context"},
        "trainings": dict(trainings),
        "rows": {
            name: {
                "total": len(rows.examples),
                "contexts": int(rows.clusters.max()) + 1,
                "categories": {category: len(found) for category, found in nested(rows.scopes)["categories"].items()},
            }
            for name, rows in material.rows.items()
        },
        "generation": _generation(material),
        "missing": material.missing,
        "control": control(study),
        "headline": _headline(study, factorial, losses),
        "factorial": factorial,
        "sweep": _sweep(material),
        "dose": {arm: _dose(material, arm) for arm in full_arms(study)},
        "losses": losses,
        "likelihood": _by_arm(material, LIKELIHOOD, against_base=True),
        "behaviour": behaviour(material),
        "arms": _by_arm(material, ARM_OUTCOMES, against_base=False),
    }


def _described(study: Study) -> dict[str, Any]:
    """The study's file without the places of files on somebody's machine."""
    found = study.model_dump()
    for holder, key in ((found, "data"), *((rows, "path") for rows in found["rows"].values())):
        if (holder[key] or "").endswith(SUFFIXES):
            holder[key] = Path(holder[key]).name
    return {key: value for key, value in found.items() if key != "directory"}


def full_arms(study: Study) -> list[str]:
    """The systems that answer under every decoding: base, article, recipe."""
    return list(dict.fromkeys((BASE, study.article, study.recipe)))


def control(study: Study) -> str | None:
    """The decoding that is the article's but for the penalty's scope: its penalty leaves the prompt alone."""
    wanted = study.decodings[study.article_decoding] | {SCOPE: "generated"}
    return next((name for name, settings in study.decodings.items() if settings == wanted), None)


def _generation(material: Material) -> dict[str, Any]:
    """Decoding → settings as they took effect: without a penalty or a temperature, there is none."""
    return {decoding: answers.generation for (_, _, decoding), answers in material.answers.items()}


def _factorial(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Training × decoding: cells, where they lie between floor and oracle, and effects paired over the same rows."""
    study = material.study
    article, recipe = study.article, study.recipe
    before, after = study.article_decoding, study.recipe_decoding
    cells = {arm: {d: score_of(material, outcome, arm, d) for d in (before, after)} for arm in full_arms(study)}
    terms = {
        "cell": [(1.0, recipe, after), (-1.0, article, before)],
        "training": [(0.5, recipe, after), (0.5, recipe, before), (-0.5, article, after), (-0.5, article, before)],
        "decoding": [(0.5, recipe, after), (0.5, article, after), (-0.5, recipe, before), (-0.5, article, before)],
        "interaction": [(1.0, recipe, after), (-1.0, recipe, before), (-1.0, article, after), (1.0, article, before)],
    }
    terms |= {f"decoding in {arm}": [(1.0, arm, after), (-1.0, arm, before)] for arm in full_arms(study)}
    terms |= {f"training under {d}": [(1.0, recipe, d), (-1.0, article, d)] for d in (before, after)}
    # Elsewhere there is no band: JSQuAD's gold answers are a few characters, its sentences are not, and open rows have
    # no oracle.
    normalised = outcome == CONTEXT_F1
    return {
        "cells": cells,
        "normalised": {arm: {d: position(material, outcome, arm, d) for d in found} for arm, found in cells.items()}
        if normalised
        else None,
        "limits": limits(material, outcome),
        "effects": {name: effect(material, outcome, parts) for name, parts in terms.items()},
        "ratio": ratio(material, outcome, (recipe, after), (article, before)),
    }


def _losses(material: Material, arm: str) -> dict[str, Any]:
    """Decoding → what it costs against greedy, on context and open rows, and the first minus the second."""
    found: dict[str, Any] = {}
    for decoding in material.study.decodings:
        if decoding == GREEDY:
            continue
        terms = [(1.0, arm, GREEDY), (-1.0, arm, decoding)]
        after, before = (material.answers.get((arm, "dolly", name)) for name in (decoding, GREEDY))
        difference = None
        if after and before:
            rows = material.rows["dolly"]
            tested = interaction(rows, after.mean, before.mean).get(F1)
            difference = tested and dataclasses.asdict(tested)
        kept = [ratio(material, outcome, (arm, decoding), (arm, GREEDY)) for outcome in (CONTEXT_F1, OPEN_F1)]
        found[decoding] = {
            "context": effect(material, CONTEXT_F1, terms),
            "open": effect(material, OPEN_F1, terms),
            "difference": difference,
            "kept_on_context": kept[0],
            "kept_on_open": kept[1],
        }
    return found


def _headline(study: Study, factorial: Mapping[str, Any], losses: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that the study was made for, with p adjusted for their number."""
    found = [
        {"comparison": name, "outcome": key} | (parts["effects"][name] or {})
        for key, parts in factorial.items()
        for name in ("cell", "training", "decoding", "interaction")
    ]
    loss = losses[study.recipe].get(study.article_decoding)
    found.append({"comparison": "context − open", "outcome": f"dolly.{F1}"} | ((loss and loss["difference"]) or {}))
    tested = {at: one["p"] for at, one in enumerate(found) if one.get("p") is not None}
    adjusted = holm(tested)
    return [one | {"p_holm": round(adjusted[at], 6) if at in adjusted else None} for at, one in enumerate(found)]


def _sweep(material: Material) -> dict[str, Any]:
    """Outcome → arm → decoding → score."""
    study = material.study
    return {
        outcome.key: {
            arm: {d: score_of(material, outcome, arm, d) for d in study.decodings} for arm in full_arms(study)
        }
        for outcome in SWEPT
    }


def _dose(material: Material, arm: str) -> dict[str, Any]:
    """Decoding → share of the reference in the prompt against character F1 lost from greedy, over dolly's rows."""
    study = material.study
    figure = (study.article_decoding, control(study)) if arm == study.recipe else ()
    before = material.answers.get((arm, "dolly", GREEDY))
    found: dict[str, Any] = {}
    for decoding in study.decodings:
        after = material.answers.get((arm, "dolly", decoding))
        if decoding != GREEDY:
            found[decoding] = _dose_of(material, before, after, decoding in figure) if before and after else None
    return found


def _dose_of(material: Material, before: Answers, after: Answers, drawn: bool) -> dict[str, Any]:
    """Correlations, fifths of the rows and categories; the rows' points where the figure needs them."""
    rows, resamples = material.rows["dolly"], material.study.resamples
    lost = (before.mean - after.mean)[:, column(F1)]
    order = [at for at in np.argsort(rows.share, kind="stable") if not np.isnan(rows.share[at])]
    by_kind = nested(rows.scopes)
    scopes = {"all": list(range(len(lost))), **by_kind["groups"]}
    return {
        "correlation": {
            scope: dataclasses.asdict(
                rounded(rank_correlation(rows.share[at], lost[at], rows.clusters[at], resamples, SEED))
            )
            for scope, at in scopes.items()
        },
        "fifths": [
            {"low": round(float(rows.share[part[0]]), 6), "high": round(float(rows.share[part[-1]]), 6)}
            | mean_over(lost, part, rows.clusters, resamples)
            for part in (list(part) for part in np.array_split(order, FIFTHS))
            if part
        ],
        "categories": {
            category: {"share": plain_mean(rows.share[at])} | mean_over(lost, at, rows.clusters, resamples)
            for category, at in by_kind["categories"].items()
        },
        "points": [
            [round(float(rows.share[at]), 4), round(float(lost[at]), 4), row.category, row.group]
            for at in (order if drawn else ())
            for row in [rows.examples[at]]
        ],
    }


def _by_arm(material: Material, outcomes: Sequence[Outcome], against_base: bool) -> dict[str, Any]:
    """Outcome → arm, base first → its greedy score and the difference from base, or from the arm before it."""
    arms = [BASE, *material.study.arms]
    found: dict[str, Any] = {}
    for outcome in outcomes:
        if members(material, outcome) is None and outcome.kind == "categories":
            continue
        found[outcome.key] = {}
        for place, arm in enumerate(arms):
            other = BASE if against_base else arms[place - 1]
            terms = [(1.0, arm, GREEDY), (-1.0, other, GREEDY)]
            found[outcome.key][arm] = {
                "score": score_of(material, outcome, arm, GREEDY),
                "against": other if place else None,
                "difference": effect(material, outcome, terms) if place else None,
            }
    return found


def to_json(results: Mapping[str, Any]) -> str:
    """The results as text, the same for the same answers."""
    return json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
