"""The generation settings that take effect. No torch here."""

from collections.abc import Mapping
from typing import Any, Literal

from sft.config.repetition_penalty import NO_PENALTY, PENALTY, SCOPE, is_neutral

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

STOP_STRINGS = "stop_strings"

FinishReason = Literal["eos", "heading", "stop", "length", "error", "chosen"]
"""Why an answer ended: with the end-of-text token, at a heading of the template, at one of generation.stop_strings, at
generation.max_new_tokens, or it failed; or it did not come to an end, being the likeliest of given choices."""


def effective_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that take effect: temperature 0 is greedy, greedy decoding has no sampling settings, and a penalty
    that changes nothing is none."""
    sampled = generation.get("temperature", 0.0) > 0
    idle = {*(() if sampled else SAMPLING), *(() if generation.get(STOP_STRINGS) else [STOP_STRINGS])}
    if is_neutral({PENALTY: NO_PENALTY, **generation}):
        idle |= {PENALTY, SCOPE}
    return {key: value for key, value in generation.items() if key not in idle} | {"do_sample": sampled}
