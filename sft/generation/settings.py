"""The generation settings that take effect, and all that is known about repetition penalties. No torch here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

STRONG_PENALTY = 1.3
"""Repetition penalty from which on it is warned of; the paper that introduced it (arXiv 1909.05858) uses 1.2."""


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


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


Scope = Literal["generated", "all"]


def effective_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that take effect: temperature 0 is greedy, and greedy decoding has no sampling settings."""
    settings = dict(generation)
    settings["do_sample"] = settings.get("temperature", 0.0) > 0
    if not settings["do_sample"]:
        for key in ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            settings.pop(key, None)
    if settings.get("repetition_penalty", 1.0) == 1.0:
        settings.pop("repetition_penalty", None)
        settings.pop("repetition_penalty_scope", None)
    return settings


FinishReason = Literal["eos", "length", "error"]
