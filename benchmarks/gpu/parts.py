"""What is measured on a GPU, in which order and how long each part may take. No torch here."""

import importlib.util
import itertools
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

Form = Literal["dense", "documents", "varlen"]
FORMS: tuple[Form, ...] = ("dense", "documents", "varlen")
"""How packed rows are kept apart (`training.packed_attention`)."""
ALONE: Final = "rows alone"
LEAKING: Final = "rows that see each other"
ANSWERS = tuple(
    f"{answers}, {way}"
    for answers in ("fixed, small batches", "fixed, large batches", "varied, small batches")
    for way in ("refilled", "generate")
)


class Part(NamedTuple):
    """Measures that share a process, since they share a loaded model."""

    name: str
    seconds: int
    """Its share of the time there is, its process's start included. What a part leaves is the next ones'."""
    module: str
    """The file in `benchmarks/gpu/measures/`."""
    measures: tuple[str, ...]
    """Names of its measures, in their order."""
    needs: tuple[str, ...] = ("trl",)
    """Packages without which it is left out."""


PARTS = (
    Part("card", 20, "card", ("a product",), ()),
    Part("weights", 45, "weights", ("random weights",), ()),
    Part(
        "exactness", 50, "exactness",
        (f"fp32 {ALONE}", "fp32 dense", "fp32 documents", f"bf16 {ALONE}", *(f"bf16 {form}" for form in FORMS),
         f"bf16 {LEAKING}"),
    ),
    Part("bf16", 60, "training", FORMS),
    Part("nf4", 55, "training", FORMS, ("bitsandbytes", "trl")),
    Part("24 GB", 75, "fits", ("calm7b-4bit", "calm7b", "calm7b-context"), ("bitsandbytes", "trl")),
    Part("int8", 60, "training", FORMS, ("bitsandbytes", "trl")),
    Part("others", 55, "peers", ("Trainer, group_by_length", "Trainer, batch_rebalance", "TRL, packing")),
    Part("answering", 60, "answering", ANSWERS, ()),
)  # fmt: skip


def missing(part: Part) -> str | None:
    """Why the part cannot be measured here, or None."""
    absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def deadlines(seconds: float) -> Iterator[tuple[Part, float]]:
    """Each part and when it has to end, in seconds after the start, so that no part takes the time of a later one."""
    whole = sum(part.seconds for part in PARTS)
    ends = itertools.accumulate(part.seconds for part in PARTS)
    return ((part, end * seconds / whole) for part, end in zip(PARTS, ends, strict=True))
