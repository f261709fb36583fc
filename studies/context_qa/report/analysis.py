"""The numbers of the study's report, as results.json holds them: what was not run is null. No torch here.

No text of a row is in them.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.predictions import BASE
from eval.statistics.estimates import holm
from sft.data.files.sources import SUFFIXES
from sft.data.records import CONTEXT
from studies.context_qa.forensics import compared_to_article
from studies.context_qa.placebo.scores import analyse_placebo, read_placebo
from studies.context_qa.plan import GREEDY, RowsName, Study
from studies.context_qa.report.dose import dose
from studies.context_qa.report.estimates import (
    SEED,
    Found,
    common_seeds,
    effect,
    floors,
    interaction,
    ratio,
    scored,
)
from studies.context_qa.report.material import Material, Outcome
from studies.context_qa.scores import Header

JSQUAD_GOLD, JSQUAD_F1, JSQUAD_CORRECT = (
    Outcome("jsquad", "context", metric) for metric in ("gold_contained", "jglue_f1", "correct")
)
SHOTS_EM, SHOTS_F1 = (Outcome("jsquad-shots", "context", metric) for metric in ("jglue_exact_match", "jglue_f1"))
CONTEXT_F1, CONTEXT_FACTS = (Outcome("dolly", "context", metric) for metric in ("character_f1", "facts_recall"))
OPEN_F1, OPEN_FACTS = (Outcome("dolly", "open", metric) for metric in ("character_f1", "facts_recall"))
NIILC_GOLD, NIILC_CORRECT = (Outcome("niilc", "open", metric) for metric in ("gold_contained", "correct"))

SWEPT = (JSQUAD_GOLD, JSQUAD_F1, JSQUAD_CORRECT, CONTEXT_F1, CONTEXT_FACTS, OPEN_F1, OPEN_FACTS, NIILC_GOLD)
FACTORIAL = (JSQUAD_GOLD, JSQUAD_F1, CONTEXT_F1, CONTEXT_FACTS, OPEN_F1)
ARM_OUTCOMES = (*SWEPT, *(Outcome("dolly", category, "facts_recall") for category in CONTEXT), SHOTS_EM, SHOTS_F1)
PAIRS = (
    (CONTEXT_F1, OPEN_F1), (CONTEXT_FACTS, OPEN_FACTS), (JSQUAD_GOLD, NIILC_GOLD), (JSQUAD_CORRECT, NIILC_CORRECT),
)  # fmt: skip
"""Context and open rows by one measure, for the claim that context loses more."""
SCOPES: tuple[tuple[RowsName, str], ...] = (
    ("jsquad", "context"), ("dolly", "context"), ("dolly", "open"), ("dolly", "other"), ("niilc", "open"),
    ("jsquad-shots", "context"),
)  # fmt: skip
BITS_A_CHARACTER = "reference_bits_per_character"
LIKELIHOOD = tuple(
    Outcome(rows, scope, metric)
    for rows, scope in SCOPES[:3]
    for metric in (BITS_A_CHARACTER, "context_gain")
    if (scope, metric) != ("open", "context_gain")
)
BEHAVIOUR = (
    "characters", "tokens", "eos_rate", "rep_4", "coverage", "tokens_repeated", "words_repeated", "about_the_task",
)  # fmt: skip


def analyse(material: Material) -> dict[str, Any]:
    """Everything that the tables and figures show of one study."""
    study = material.study
    factorial = {outcome.key: _factorial(material, outcome) for outcome in FACTORIAL}
    losses = {arm: _losses(material, arm) for arm in study.compared}
    return {
        "study": _described(study),
        "settings": {
            "seed": SEED,
            "resamples": study.resamples,
            "clusters": "rows with one context; of JSQuAD, with one article",
        },
        "trainings": {name: _training(material.headers.get(name)) for name in study.trained()},
        "models": {name: _model(header) for name, header in material.headers.items()},
        "rows": {name: _rows(material, name) for name in material.rows},
        "generation": material.generation,
        "missing": material.missing,
        "control": study.control,
        "placebo": {name: analyse_placebo(read_placebo(path)[1]) for name, path in study.placebo.items()},
        "forensics": compared_to_article(material),
        "headline": _headline(material, factorial, losses),
        "floors": {outcome.key: floors(material, outcome) for outcome in ARM_OUTCOMES},
        "factorial": factorial,
        "parts": {outcome.key: _parts(material, outcome) for outcome in SWEPT},
        "sweep": _sweep(material),
        "losses": losses,
        "dose": {arm: dose(material, arm) for arm in study.compared},
        "likelihood": {outcome.key: _likelihood(material, outcome) for outcome in LIKELIHOOD},
        "arms": {outcome.key: _by_arm(material, outcome) for outcome in ARM_OUTCOMES},
        "behaviour": {f"{rows}.{scope}": _behaviour(material, rows, scope) for rows, scope in SCOPES},
    }


def _described(study: Study) -> dict[str, Any]:
    """The study's file without the places of files on somebody's machine."""
    found = study.model_dump()
    for holder, key in ((found, "data"), *((rows, "path") for rows in found["rows"].values())):
        if (holder[key] or "").endswith(SUFFIXES):
            holder[key] = Path(holder[key]).name
    return {key: value for key, value in found.items() if key not in ("directory", "scores")}


def _training(header: Header | None) -> dict[str, Any] | None:
    """What its manifest said of a training, and what became of the rows with and without a context."""
    if header is None or header.training is None:
        return None
    found = header.training.model_dump()
    fates: dict[str, Counter[str]] = {"context": Counter(), "other": Counter()}
    for category, counts in found["truncation"].items():
        fates["context" if category in CONTEXT else "other"].update(counts)
    return {key: value for key, value in found.items() if key != "truncation"} | {"fates": fates}


def _model(header: Header) -> dict[str, Any]:
    return header.model_dump(include={"model", "base", "learned_sha256", "dtype", "quantization", "template"})


def _rows(material: Material, name: RowsName) -> dict[str, Any]:
    found = material.rows[name]
    return {
        "total": len(found.rows),
        "contexts": len({row.context for row in found.rows}),
        "clusters": len(set(found.clusters.tolist())),
        "scopes": {at: len(n) for at, n in found.scopes.items()},
    }


def _difference(material: Material, outcome: Outcome, terms: Iterable[tuple[float, str, str]]) -> Found:
    """Σ factor × (arm, decoding)."""
    return effect(material, outcome, [(f, material.cell(outcome, arm, decoding)) for f, arm, decoding in terms])


def _factorial(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Training × decoding, over all seeds: effects paired over the same rows."""
    study = material.study
    article, recipe = study.article, study.recipe
    before, after = study.article_decoding, study.recipe_decoding
    terms = {
        "cell": [(1.0, recipe, after), (-1.0, article, before)],
        "training": [(0.5, recipe, after), (0.5, recipe, before), (-0.5, article, after), (-0.5, article, before)],
        "decoding": [(0.5, recipe, after), (0.5, article, after), (-0.5, recipe, before), (-0.5, article, before)],
        "interaction": [(1.0, recipe, after), (-1.0, recipe, before), (-1.0, article, after), (1.0, article, before)],
    }
    return {
        "cells": {a: {d: scored(material, outcome, a, d) for d in (before, after)} for a in study.compared},
        "effects": {name: _difference(material, outcome, parts) for name, parts in terms.items()},
    }


def _parts(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Arm → what greedy loses under the article's decoding, and how much to the one on generated tokens alone.

    The first seed's, whose answers there are under every decoding.
    """
    study, found = material.study, {}
    before, after, middle = GREEDY, study.article_decoding, study.control
    for arm in study.compared:
        terms = {"total": [(1.0, before), (-1.0, after)]}
        if middle:
            terms["generated"] = [(1.0, before), (-1.0, middle)]
            terms["prompt"] = [(1.0, middle), (-1.0, after)]
        parts = {
            name: [(f, material.cell(outcome, arm, d, seeds=study.seeds[:1])) for f, d in one]
            for name, one in terms.items()
        }
        found[arm] = {name: effect(material, outcome, one) for name, one in parts.items()}
        found[arm]["generated_share"] = ratio(material, outcome, parts["generated"], parts["total"]) if middle else None
    return found


def _headline(material: Material, factorial: Mapping[str, Any], losses: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that the study was made for, named before it was answered, with p adjusted for their number."""
    study = material.study
    article, recipe, penalised = study.article, study.recipe, study.article_decoding
    found: list[dict[str, Any]] = [
        {"comparison": name, "outcome": key} | (parts["effects"][name] or {})
        for key, parts in factorial.items()
        for name in ("cell", "training", "decoding", "interaction")
    ]
    for arm in (BASE, article):
        lost = _difference(material, JSQUAD_GOLD, [(1.0, arm, penalised), (-1.0, arm, GREEDY)])
        found.append({"comparison": f"{arm}: {GREEDY} → {penalised}", "outcome": JSQUAD_GOLD.key} | (lost or {}))
    for first, second in PAIRS:
        one = losses[article].get(f"{GREEDY} → {penalised}", {}).get(f"{first.key} − {second.key}")
        found.append({"comparison": "context − open", "outcome": first.key} | ((one and one["difference"]) or {}))
    for outcome in (JSQUAD_F1, CONTEXT_F1, CONTEXT_FACTS):
        one = (scored(material, outcome, recipe, GREEDY, tested=True) or {}).get("above_lead")
        found.append({"comparison": f"{recipe} − a lead as long", "outcome": outcome.key} | (one or {}))
    for outcome in (SHOTS_F1, SHOTS_EM):
        one = (scored(material, outcome, recipe, GREEDY, tested=True) or {}).get("above_floor")
        found.append({"comparison": f"{recipe} − best floor", "outcome": outcome.key} | (one or {}))
    tested = {at: one["p"] for at, one in enumerate(found) if one.get("p") is not None}
    adjusted = holm(tested)
    return [one | {"p_holm": round(adjusted[at], 6) if at in adjusted else None} for at, one in enumerate(found)]


def _sweep(material: Material) -> dict[str, Any]:
    """Outcome → arm → decoding → score beside its floors, of the first seed."""
    study = material.study
    return {
        outcome.key: {
            arm: {d: scored(material, outcome, arm, d, study.seeds[:1]) for d in study.decodings}
            for arm in study.compared
        }
        for outcome in SWEPT
    }


def _losses(material: Material, arm: str) -> dict[str, Any]:
    """Pair of decodings → pair of outcomes → what is lost on context and on open rows, and the first − the second.

    From greedy to each decoding, and from the recipe's to the article's. `above_floor` says by how much answers under
    the first are above the best floor: what is at its floor has nothing to lose.
    """
    study, found = material.study, {}
    pairs = [(GREEDY, name) for name in study.decodings if name != GREEDY]
    pairs += [(study.recipe_decoding, study.article_decoding)] if study.recipe_decoding != GREEDY else []

    @functools.cache
    def above_floor(outcome: Outcome, before: str, seeds: tuple[int, ...]) -> Found:
        return (scored(material, outcome, arm, before, seeds) or {}).get("above_floor")

    def above(outcome: Outcome, before: str, after: str) -> Found:
        both = [values for name in (before, after) if (values := material.cell(outcome, arm, name))]
        # What is lost is of the seeds that answered under both.
        return above_floor(outcome, before, tuple(seed for seed in common_seeds(both) if seed is not None))

    for before, after in pairs:
        terms = [(1.0, arm, before), (-1.0, arm, after)]
        found[f"{before} → {after}"] = {
            f"{context.key} − {open_.key}": {
                "context": _difference(material, context, terms),
                "open": _difference(material, open_, terms),
                "difference": interaction(material, (context, open_), arm, before, after),
                "context_above_floor": above(context, before, after),
                "open_above_floor": above(open_, before, after),
            }
            for context, open_ in PAIRS
        }
    return found


def _likelihood(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Arm → its score, beside which no decoding can matter, and the difference from base.

    Of what a context saves also the share of the bits that there are without it.
    """
    saves = outcome.metric == "context_gain"
    return {
        arm: {
            "score": _difference(material, outcome, [(1.0, arm, GREEDY)]),
            "difference": _difference(material, outcome, [(1.0, arm, GREEDY), (-1.0, BASE, GREEDY)]),
            "share": _share_saved(material, outcome, arm) if saves else None,
        }
        for arm in material.study.all_arms
    }


def _share_saved(material: Material, outcome: Outcome, arm: str) -> Found:
    """Bits that the context saves of a reference / bits without it, over all characters."""
    gain, bits = (material.cell(outcome, arm, GREEDY, name) for name in (outcome.metric, BITS_A_CHARACTER))
    lengths = material.weights(outcome)
    saved, left = ({seed: one * lengths for seed, one in (cell or {}).items()} for cell in (gain, bits))
    return ratio(material, outcome, [(1.0, saved)], [(1.0, saved), (1.0, left)])


def _by_arm(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Decoding → arm → its score beside its floors, and its differences from recipe, over common seeds, and base."""
    study = material.study
    decodings = [GREEDY] if outcome.rows == "jsquad-shots" else study.short_decodings
    return {
        decoding: {
            arm: {
                "score": scored(material, outcome, arm, decoding),
                "difference": _difference(material, outcome, [(1.0, arm, decoding), (-1.0, study.recipe, decoding)]),
                "from_base": _difference(material, outcome, [(1.0, arm, decoding), (-1.0, BASE, decoding)])
                if arm != BASE
                else None,
            }
            for arm in study.all_arms
        }
        for decoding in decodings
    }


def _behaviour(material: Material, rows: RowsName, scope: str) -> dict[str, Any]:
    """Arm → decoding → how answers are made."""
    study, found = material.study, {}
    for arm in study.all_arms:
        found[arm] = {
            decoding: {
                metric: _difference(material, Outcome(rows, scope, metric), [(1.0, arm, decoding)])
                for metric in BEHAVIOUR
            }
            for decoding in study.decodings
            if (arm, rows, decoding) in material.tables
        }
    return found


def to_json(results: Mapping[str, Any]) -> str:
    """The results as text, the same for the same scores. Without blanks, which would be half of it."""
    return json.dumps(results, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
