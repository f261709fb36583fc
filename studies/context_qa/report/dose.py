"""How what a decoding costs a row goes with the share of its reference that stands in its prompt. No torch here."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.scoring.rows import rounded
from eval.statistics.estimates import Array, is_bound, rank_correlation
from studies.context_qa.plan import GREEDY
from studies.context_qa.report.estimates import SEED, mean_over, plain_mean
from studies.context_qa.report.material import Material, Outcome

FIFTHS = 5
F1 = Outcome("dolly", "context", "character_f1")
"""The measure; rows of every scope are looked at."""


def dose(material: Material, arm: str) -> dict[str, Any]:
    """Pair of decodings → share of the reference in the prompt against character F1 lost, over dolly's rows.

    And the same with the score before held fixed: rows whose answer stands in the prompt may have more to lose.
    From greedy to each decoding, and from the control to the article's: what the penalty on the prompt alone does.
    """
    study = material.study
    pairs = [(GREEDY, name) for name in study.decodings if name != GREEDY]
    pairs += [(middle, study.article_decoding)] if (middle := study.control) else []
    return {f"{before} → {after}": _dose_of(material, arm, before, after) for before, after in pairs}


def _dose_of(material: Material, arm: str, before: str, after: str) -> dict[str, Any] | None:
    cells = [material.cell(F1, arm, name) for name in (before, after)]
    shares = material.cell(F1, arm, after, "share")
    first, second = cells
    if not first or not second or not shares:
        return None
    seed = next(iter(second))  # the first one's, whose answers there are under every decoding
    rows, resamples = material.rows["dolly"], material.study.resamples
    start, lost, share = first[seed], first[seed] - second[seed], shares[seed]
    order = [int(at) for at in np.argsort(share, kind="stable") if not np.isnan(share[at])]
    scopes = {"all": list(range(len(lost))), **{g: at for g, at in rows.scopes.items() if g in ("context", "open")}}

    def correlation(at: Sequence[int], given: Array | None = None) -> dict[str, Any]:
        found = rank_correlation(share[at], lost[at], rows.clusters[at], resamples, SEED, given)
        return dataclasses.asdict(rounded(found)) | {"p_is_bound": is_bound(found.p)}

    categories = {row.category: rows.scopes.get(row.category, []) for row in rows.rows}
    return {
        "correlation": {scope: correlation(at) for scope, at in scopes.items()},
        "correlation_given_score_before": {scope: correlation(at, start[at]) for scope, at in scopes.items()},
        "fifths": [
            {"low": round(float(share[part[0]]), 6), "high": round(float(share[part[-1]]), 6)}
            | mean_over(lost, part, material, "dolly")
            for part in (list(part) for part in np.array_split(order, FIFTHS))
            if part
        ],
        "categories": {
            name: {"share": plain_mean(share[at])} | mean_over(lost, at, material, "dolly")
            for name, at in categories.items()
            if at
        },
        "points": [[round(float(share[at]), 4), round(float(lost[at]), 4), rows.rows[at].group] for at in order]
        if arm == material.study.article and after == material.study.article_decoding
        else [],
    }
