"""Settings that work and hurt: warnings with the rows concerned and the remedy, before time is spent. No torch here."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sft.data.records import CATEGORIES
from sft.system.visible import one_line

if TYPE_CHECKING:  # imports transformers
    from sft.prompt.row_encoder import Fate

STRONG_PENALTY = 1.3
"""Repetition penalty from which on it is warned of; the paper that introduced it (arXiv 1909.05858) uses 1.2."""

TOLERATED_LOSS = 0.01
"""Share of a category's training rows that may lose their answer's end without a warning."""


def generation_hazards(
    settings: Mapping[str, Any], contexts: Sequence[str | bool], prompts: Iterable[Sequence[int]], eos_id: int
) -> list[str]:
    """Warnings about answering rows with `settings` (section `generation`); empty when nothing is wrong.

    Args:
        settings: a `repetition_penalty` above 1 is what can hurt, and its `repetition_penalty_scope` (default
            "generated").
        contexts: each row's context, "" where it has none; or only whether it has one.
        prompts: each row's encoded prompt; looked at only where the penalty counts the prompt's tokens.
        eos_id: the end-of-text id.
    """
    penalty = settings.get("repetition_penalty", 1.0)
    warnings = []
    if contexts and penalty >= STRONG_PENALTY:
        warnings.append(
            f"a repetition penalty of {penalty:g} makes answers short and keeps what they need out of them "
            f"({_rows(len(contexts))} to answer); set generation.repetition_penalty=1.2 or less"
        )
    if penalty <= 1 or settings.get("repetition_penalty_scope", "generated") != "all":
        return warnings
    counts = f"the repetition penalty of {penalty:g} counts the prompt, so"
    remedy = "set generation.repetition_penalty_scope=generated"
    with_context = sum(map(bool, contexts))
    if with_context:
        warnings.append(
            f"{counts} answers cannot quote their context freely ({_rows(with_context)} with a context); {remedy}"
        )
    with_end = sum(eos_id in prompt for prompt in prompts)
    if with_end:
        warnings.append(
            f"{counts} answers may not stop ({_rows(with_end)} with the end-of-text token in the prompt); {remedy}"
        )
    return warnings


def truncation_hazards(
    fates: Mapping[tuple[str, "Fate"], int], truncation: Literal["context", "end"], max_length: int
) -> list[str]:
    """A warning for each category of which more than 1% of the training rows lose their answer, or the end of it.

    `fates` counts (category, fate) as `RowEncoder.fates` does, `truncation` is `data.truncation`, and `max_length`
    `training.max_length` in tokens. A dropped row's answer is lost whole; one cut off at the end still loses at
    least its end-of-text token.
    """
    remedy = f"set {'data.truncation=context or ' if truncation == 'end' else ''}a larger training.max_length"
    warnings = []
    if not any(count for (_, fate), count in fates.items() if fate in ("whole", "context shortened")):
        warnings.append(f"no training row keeps its end-of-text token, so no answer will learn to stop; {remedy}")
    for category in CATEGORIES:
        rows = sum(count for (name, _), count in fates.items() if name == category)
        cut, dropped = fates.get((category, "end cut off"), 0), fates.get((category, "dropped"), 0)
        if cut + dropped > TOLERATED_LOSS * rows:
            lost = [f"{cut} cut off before the end"] * bool(cut) + [f"{dropped} dropped"] * bool(dropped)
            warnings.append(
                f"{category} loses answers to training.max_length {max_length}: {' and '.join(lost)} "
                f"of {rows} training rows ({(cut + dropped) / rows:.1%}); {remedy}"
            )
    return warnings


def warn_of_loss(log: Path) -> None:
    """Print a warning where the loss at the end of a run's log is not below the one at its beginning (a tenth each)."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    if len(losses) < 2:
        return
    tenth = -(-len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    if not last < first:
        warn(
            [
                f"the loss did not fall ({first:.3f} at first, {last:.3f} at last): the model may have learned "
                "nothing; look at loss.png, and at training.learning_rate"
            ]
        )


def warn(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, a line each."""
    for warning in warnings:
        print(one_line(f"warning: {warning}"), file=sys.stderr, flush=True)


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"
