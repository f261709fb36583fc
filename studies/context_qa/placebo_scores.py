"""The placebo experiment's settings, and its row scores as tables. No torch here."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from eval.render.numbers import number, p_value
from sft.config.section import Section
from sft.page.blocks import Cell, Table

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


def placebo_table(rows: Sequence[RowScores]) -> Table:
    """Every setting: gold contained with Wilson's 95% interval, and against no penalty over the same rows."""
    header = ["penalised", "penalty", "gold contained", "rows", "gained, lost", "p", "character F1", "characters"]
    header += ["tokens penalised", "of the gold's"]
    gold, f1, lengths, penalised, gold_penalised = (
        np.array([getattr(row, name) for row in rows], dtype=float)
        for name in ("gold_contained", "character_f1", "characters", "penalised", "gold_penalised")
    )
    cells: list[list[str | Cell]] = []
    for place, (scope, penalty) in enumerate(SETTINGS):
        contained = int(gold[:, place].sum())
        low, high = binomtest(contained, len(rows)).proportion_ci(method="wilson")
        gained, lost, p = paired(gold[:, 0], gold[:, place])
        at = SCOPES.index(scope)
        cells.append(
            [
                scope,
                f"{penalty:g}" if at else "",
                Cell(number(contained / len(rows)), f"[{number(low)}, {number(high)}]"),
                f"{contained} of {len(rows)}",
                *([f"+{gained} −{lost}", p_value(p)] if at else ["", ""]),
                number(f1[:, place].mean()),
                number(lengths[:, place].mean(), digits=1),
                number(penalised[:, at].mean(), digits=0),
                number(gold_penalised[:, at].mean(), digits=2),
            ]
        )
    return Table(header, cells)


def contrasts(rows: Sequence[RowScores]) -> Table:
    """Rows gained and lost between settings of the strong penalty, with McNemar's exact p."""
    cells: list[list[str | Cell]] = []
    for one, other in PAIRS:
        gained, lost, p = paired(_scores(rows, one), _scores(rows, other))
        difference = number((gained - lost) / len(rows), signed=True)
        cells.append([f"{one} → {other}", difference, str(gained), str(lost), p_value(p)])
    return Table([f"at {STRONG:g}", "difference", "gained", "lost", "p"], cells)


def paired(before: np.ndarray, after: np.ndarray) -> tuple[int, int, float]:
    """Rows gained and lost, and the two-sided p of McNemar's exact test: 1 where no row changed."""
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return gained, lost, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def zero_of_logits(rows: Sequence[RowScores]) -> str:
    """Where zero lies among the logits, on which it depends what a penalty does."""
    top, median, positive = (np.median([getattr(row, name) for row in rows]) for name in ("top", "median", "positive"))
    below = sum(row.top < 0 for row in rows)
    return (
        f"Logits of the answer's first token, medians over rows: largest {top:.1f}, median {median:.1f}, above zero "
        f"{positive:.2%}. The largest is below zero in {below} of {len(rows)} rows. Penalties divide logits above zero "
        "and multiply those below."
    )


def _scores(rows: Sequence[RowScores], scope: str) -> np.ndarray:
    return np.array([row.gold_contained[SCOPES.index(scope)] for row in rows])
