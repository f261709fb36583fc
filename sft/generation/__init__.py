"""Answers: settings, the penalty that knows the prompt from the answer, batches, streaming, a loaded run."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`from sft.generation import ScopedRepetitionPenalty` (docs/answering.md), without torch for all others."""
    if name == "ScopedRepetitionPenalty":
        from sft.generation.penalty import ScopedRepetitionPenalty

        return ScopedRepetitionPenalty
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
