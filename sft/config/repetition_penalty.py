"""All that is known of repetition penalties, but for the processor itself (`sft.generation.penalty`). No torch here.

It stands in this room since the configuration, the lowest to know of it, takes its defaults from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sft.system.texts import Count, said

PENALTY, SCOPE = "repetition_penalty", "repetition_penalty_scope"
"""Keys of section `generation`: transformers' own, and ours that says which tokens it counts."""
PenaltyScope = Literal["generated", "all"]
"""generated: the answer's tokens. all: the prompt's too, as in transformers."""
DEFAULT_SCOPE: PenaltyScope = "generated"
NO_PENALTY = 1.0
"""The penalty that changes nothing, whatever its scope; the default."""
STRONG_PENALTY = 1.3
"""Repetition penalty from which on it is warned of; the paper that introduced it (arXiv 1909.05858) uses 1.2."""
GRID: dict[str, list[Any]] = {PENALTY: [NO_PENALTY, 1.2, 5.0], SCOPE: ["generated", "all"]}
"""Settings that show what a penalty does: what `python -m eval sweep` compares where nothing else is asked for."""

MEASURED = (
    "A repetition penalty that counts the prompt keeps an answer from quoting its context. Measured on JSQuAD, "
    "untuned, right words in the answers of gemma-3-270m to 200 questions and of Qwen2.5-Coder-1.5B-Instruct to 100: "
    "without a penalty 80 and 58, with 1.2 on generated tokens 79 and 56, over the prompt, too, with 1.05 72 and 55, "
    "with 1.1 67 and 51, with 1.2 53 and 33, with 5.0 none."
)


def is_neutral(setting: Mapping[str, Any]) -> bool:
    """Whether a setting names the penalty that changes nothing, so that its scope does not matter either."""
    return setting.get(PENALTY) == NO_PENALTY


def penalty_hazards(
    settings: Mapping[str, Any], contexts: Sequence[str | bool], prompts: Iterable[Sequence[int]], eos_id: int
) -> list[str]:
    """Warnings about answering rows with `settings` (section `generation`); empty when nothing is wrong.

    Args:
        settings: a penalty above 1 is what can hurt, and its scope.
        contexts: each row's context, "" where it has none; or only whether it has one.
        prompts: each row's encoded prompt; looked at only where the penalty counts the prompt's tokens.
        eos_id: the end-of-text id.
    """
    penalty = settings.get(PENALTY, NO_PENALTY)
    warnings: list[str] = []
    if contexts and penalty >= STRONG_PENALTY:
        warnings.append(said("doctor.penalty_strong", penalty=f"{penalty:g}", rows=Count(len(contexts))))
    if penalty <= NO_PENALTY or settings.get(SCOPE, DEFAULT_SCOPE) != "all":
        return warnings
    if with_context := sum(map(bool, contexts)):
        warnings.append(said("doctor.penalty_on_context", penalty=f"{penalty:g}", rows=Count(with_context)))
    if with_end := sum(eos_id in prompt for prompt in prompts):
        warnings.append(said("doctor.penalty_on_end", penalty=f"{penalty:g}", rows=Count(with_end)))
    return warnings
