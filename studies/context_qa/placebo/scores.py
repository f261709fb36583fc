"""The placebo experiment's settings, and its row scores as tables. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.render.numbers import number, p_value
from eval.statistics.estimates import Array, Clusters, bootstrap_means, is_bound, sign_flip_p
from eval.statistics.shares import share_interval
from sft.config.section import Section
from sft.page.blocks import Block, Cell, Heading, Table, paragraph
from sft.system.errors import UserError
from sft.system.files import read_bytes
from studies.context_qa.scores import clusters_of

NOTHING, GENERATED, PROMPT = "nothing", "generated", "prompt + generated"
PLACEBO, QUESTION = "another row's context + generated", "question and template + generated"
CONTEXT, ALL_BUT_GOLD, GOLD = "context + generated", "all but the gold's tokens", "the gold's tokens alone"
SCOPES = (NOTHING, GENERATED, PROMPT, PLACEBO, QUESTION, CONTEXT, ALL_BUT_GOLD, GOLD)
"""Which tokens count as said already."""

STRONG = 5.0
SETTINGS = (
    *((scope, STRONG) for scope in SCOPES),
    *((scope, penalty) for scope in (PROMPT, GENERATED) for penalty in (1.05, 1.1, 1.2, 1.5, 2.0)),
)
"""What every row is answered under: which tokens count, and the penalty on them."""
PAIRS = (
    (NOTHING, GENERATED), (NOTHING, PROMPT), (NOTHING, PLACEBO), (GENERATED, PLACEBO), (GENERATED, PROMPT),
    (PLACEBO, PROMPT), (PLACEBO, CONTEXT), (PLACEBO, QUESTION), (NOTHING, ALL_BUT_GOLD), (NOTHING, GOLD),
)  # fmt: skip
"""What is compared under the strong penalty: before → after."""


class RowScores(Section):
    """What is known of one row's answers."""

    index: str
    """The row's id."""
    gold_contained: list[int]
    """For each of SETTINGS, 1 when an accepted answer stands in the answer, else 0."""
    character_f1: list[float]
    """For each of SETTINGS, against the nearest accepted answer, 0 to 1."""
    characters: list[int]
    """For each of SETTINGS, the length of the answer: the longer it is, the easier gold is contained."""
    penalised: list[int]
    """For each of SCOPES, how many different tokens count as said before the answer begins."""
    gold_penalised: list[float]
    """For each of SCOPES, the share of the gold's tokens among them, 0 to 1."""
    top: float
    """The largest logit of the answer's first token, without a penalty."""
    median: float
    """The median of those logits."""
    positive: float
    """The share of them above 0: a penalty divides these and multiplies the others."""


def read_placebo(path: Path) -> tuple[str, list[RowScores]]:
    """The header line and the rows of a file of row scores. Raises UserError for a damaged one."""
    header, *lines = [line for line in read_bytes(path).decode(errors="replace").splitlines() if line] or [""]
    try:
        return header, [RowScores.model_validate_json(line) for line in lines]
    except ValueError:
        raise UserError(f"{path}: is damaged; move it away, and its rows are answered again") from None


def analyse_placebo(rows: Sequence[RowScores]) -> dict[str, Any]:
    """Every number of the experiment: of each setting, of pairs of settings, and of where zero lies among the logits.

    Intervals (95%) and p are over what the rows are about: see `clusters_of`. `overlap` tells rows whose penalised
    tokens hold some of the gold's from rows where they hold none.
    """
    clusters = clusters_of((row.index, row.index) for row in rows)
    gold, f1, lengths, penalised, gold_penalised = (
        np.array([getattr(row, name) for row in rows], dtype=float)
        for name in ("gold_contained", "character_f1", "characters", "penalised", "gold_penalised")
    )
    settings = []
    for place, (scope, penalty) in enumerate(SETTINGS):
        at, answers = SCOPES.index(scope), gold[:, place]
        estimate = bootstrap_means(answers[:, None], np.ones((len(rows), 1)), clusters)[0]
        share = share_interval(estimate, answers, clusters)
        found = {"scope": scope, "penalty": penalty, "contained": int(answers.sum()), "n": len(rows)}
        found |= {"mean": share.mean, "ci_low": share.ci_low, "ci_high": share.ci_high}
        found |= paired(gold[:, 0], answers, clusters)
        found |= {"character_f1": float(f1[:, place].mean()), "characters": float(lengths[:, place].mean())}
        found |= {"penalised": float(penalised[:, at].mean()), "gold_penalised": float(gold_penalised[:, at].mean())}
        settings.append(found)
    pairs = [
        {"before": one, "after": other} | paired(gold[:, SCOPES.index(one)], gold[:, SCOPES.index(other)], clusters)
        for one, other in PAIRS
    ]
    overlap = [
        {"after": scope, "gold_penalised": some} | _of_rows(gold[chosen], SCOPES.index(scope), clusters[chosen])
        for scope in (PLACEBO, QUESTION)
        for some in (False, True)
        if len(chosen := np.flatnonzero((gold_penalised[:, SCOPES.index(scope)] > 0) == some))
    ]
    logits = {name: float(np.median([getattr(row, name) for row in rows])) for name in ("top", "median", "positive")}
    logits["top_below_zero"] = sum(row.top < 0 for row in rows)
    return {"n": len(rows), "settings": settings, "pairs": pairs, "overlap": overlap, "logits": logits}


def paired(before: Array, after: Array, clusters: Clusters) -> dict[str, Any]:
    """Rows gained and lost, their difference as a share of all, and p by sign flips over the clusters."""
    changes = (after - before)[:, None]
    p = sign_flip_p(changes, np.ones_like(changes), clusters)[0]
    found = {"gained": int((changes > 0).sum()), "lost": int((changes < 0).sum())}
    return found | {"difference": float(changes.mean()), "p": p, "p_is_bound": is_bound(p)}


def _of_rows(gold: Array, scope: int, clusters: Clusters) -> dict[str, Any]:
    """What these rows' right answers under a penalty on generated tokens become under the scope's."""
    before, after = gold[:, SCOPES.index(GENERATED)], gold[:, scope]
    found = {"n": len(gold), "contained_before": int(before.sum()), "contained": int(after.sum())}
    return found | {"mean": float(after.mean())} | paired(before, after, clusters)


def placebo_blocks(found: Mapping[str, Any]) -> list[Block]:
    """The tables of `analyse_placebo`'s numbers."""
    header = ["penalised", "penalty", "gold contained", "rows", "gained, lost", "p", "character F1", "characters"]
    header += ["tokens penalised", "of the gold's"]
    cells: list[list[str | Cell]] = [
        [
            one["scope"],
            f"{one['penalty']:g}" if place else "",
            Cell(number(one["mean"]), f"[{number(one['ci_low'])}, {number(one['ci_high'])}]"),
            f"{one['contained']} of {one['n']}",
            *([f"+{one['gained']} −{one['lost']}", p_value(one["p"], one["p_is_bound"])] if place else ["", ""]),
            number(one["character_f1"]),
            number(one["characters"], digits=1),
            number(one["penalised"], digits=0),
            number(one["gold_penalised"], digits=2),
        ]
        for place, one in enumerate(found["settings"])
    ]
    contrasts: list[list[str | Cell]] = [
        [
            f"{one['before']} → {one['after']}",
            number(one["difference"], signed=True),
            *(str(one[side]) for side in ("gained", "lost")),
            p_value(one["p"], one["p_is_bound"]),
        ]
        for one in found["pairs"]
    ]
    overlaps: list[list[str | Cell]] = [
        [
            f"{GENERATED} → {one['after']}",
            "some of the gold's" if one["gold_penalised"] else "none of the gold's",
            str(one["n"]),
            f"{one['contained_before']} → {one['contained']}",
            *(str(one[side]) for side in ("gained", "lost")),
            p_value(one["p"], one["p_is_bound"]),
        ]
        for one in found["overlap"]
    ]
    logits = found["logits"]
    zero = (
        f"Logits of the answer's first token, medians over rows: largest {logits['top']:.1f}, median "
        f"{logits['median']:.1f}, above zero {logits['positive']:.2%}. The largest is below zero in "
        f"{logits['top_below_zero']} of {found['n']} rows. Penalties divide logits above zero and multiply those below."
    )
    pairs = Table([f"at {STRONG:g}", "difference", "gained", "lost", "p"], contrasts)
    rows_by_overlap = Table([f"at {STRONG:g}", "penalised", "rows", "contained", "gained", "lost", "p"], overlaps)
    return [
        Table(header, cells),
        Heading(3, "Pairs of settings, row by row"),
        pairs,
        Heading(3, "By whether the penalised tokens hold some of the gold's"),
        rows_by_overlap,
        paragraph(zero),
    ]
