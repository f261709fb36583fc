"""How far a merged model is from what it was: logits and greedy answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.generation.generate import generate
from sft.system.errors import UserError

POSITIONS = 64
"""Logits are compared at a row's last positions: those that predict its reference answer."""
NEW_TOKENS = 64
LARGEST_SHARE = 0.5
"""The most that merging may change logits by, as a share of what the adapter itself changes (both means).

Rounding to 16 bits gives 0.15 on gemma-3-270m; an adapter that is left out, or put in twice, gives 1.
"""


class CheckRow(NamedTuple):
    """A row that models are compared on: its prompt, and prompt and reference answer, as ids."""

    prompt: list[int]
    whole: list[int]
    messages: Sequence[Mapping[str, str]] = ()
    """The conversation that becomes the prompt; none where engines cannot be sent one that becomes exactly that."""


class Outputs(NamedTuple):
    """What a model says to the rows: logits (positions, vocabulary) of each, and its greedy answers."""

    logits: list[torch.Tensor]
    answers: list[str]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Absolute differences between two models' logits, over all positions and the whole vocabulary."""

    largest: float
    mean: float

    def __str__(self) -> str:
        return f"{self.mean:.2g} on average and {self.largest:.2g} at most"


@dataclasses.dataclass(frozen=True)
class MergeCheck:
    """What merging changed. `answers_equal` of `rows` greedy answers are the same before and after."""

    rows: int
    positions: int
    dtype: str
    logits: Difference
    """Base with adapter against merged, both in `dtype`."""
    adapter_effect: Difference
    """Base with adapter against base, the scale to read the others by."""
    answers_equal: int
    trained_logits: Difference | None
    """What was trained (quantised base with adapter) against merged; None for a run that was not quantised."""
    trained_answers_equal: int | None
    unequal: list[tuple[str, str]]
    """Answers before and after merging, where they differ."""

    def lines(self) -> list[str]:
        """The check in words."""
        lines = [
            f"merged against base + adapter, both {self.dtype}, on {self.positions} positions of {self.rows} rows: "
            f"logits differ by {self.logits} (the adapter's own effect: {self.adapter_effect.mean:.2g} and "
            f"{self.adapter_effect.largest:.2g}); {self.answers_equal} of {self.rows} greedy answers are equal"
        ]
        if self.trained_logits:
            lines.append(
                "merged against what was trained, the quantised base + adapter: logits differ by "
                f"{self.trained_logits}; {self.trained_answers_equal} of {self.rows} greedy answers are equal"
            )
        return lines


@torch.inference_mode()
def outputs(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[CheckRow],
    generation: Mapping[str, Any],
) -> Outputs:
    """Logits at the rows' last positions, and greedy answers under the run's other generation settings."""
    ids = [torch.tensor([row.whole], device=model.device) for row in rows]
    logits = [model(input_ids=row, logits_to_keep=POSITIONS).logits[0].float().cpu() for row in ids]
    greedy = {**generation, "temperature": 0.0, "max_new_tokens": min(NEW_TOKENS, generation["max_new_tokens"])}
    answers = generate(model, tokenizer, [row.prompt for row in rows], greedy)
    return Outputs(logits, [answer.text for answer in answers])


def difference(before: Outputs, after: Outputs) -> Difference:
    """How far two models' logits are apart."""
    gaps = [(a - b).abs() for a, b in zip(before.logits, after.logits, strict=True)]
    total = sum(gap.double().sum().item() for gap in gaps)
    return Difference(max(gap.max().item() for gap in gaps), total / sum(gap.numel() for gap in gaps))


def check(base: Outputs, tuned: Outputs, merged: Outputs, dtype: torch.dtype, trained: Outputs | None) -> MergeCheck:
    """Compare base, base with adapter, merged and, for a quantised run, what was trained.

    Raises UserError unless merging changed less than `LARGEST_SHARE` of what the adapter does; so, too, for non-finite
    logits.
    """
    unequal = [pair for pair in zip(tuned.answers, merged.answers, strict=True) if pair[0] != pair[1]]
    found = MergeCheck(
        rows=len(merged.answers),
        positions=sum(map(len, merged.logits)),
        dtype=str(dtype).removeprefix("torch."),
        logits=difference(tuned, merged),
        adapter_effect=difference(tuned, base),
        answers_equal=len(merged.answers) - len(unequal),
        trained_logits=difference(trained, merged) if trained else None,
        trained_answers_equal=sum(map(str.__eq__, trained.answers, merged.answers)) if trained else None,
        unequal=unequal,
    )
    # Written so that it fails, too, where a mean is not a number, and where the adapter changes nothing at all.
    if not found.logits.mean < LARGEST_SHARE * found.adapter_effect.mean:
        raise UserError(
            f"merging changes logits by {found.logits.mean:.2g} on average, and the adapter itself by "
            f"{found.adapter_effect.mean:.2g}: in {found.dtype} its effect would be lost (bound: {LARGEST_SHARE:.0%}); "
            "share the adapter instead, or merge with model.dtype=float32"
        )
    return found
