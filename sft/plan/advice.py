"""Which settings would make a training fit a GPU, by the estimate of its memory."""

import itertools
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from sft.plan.cards import GB
from sft.plan.memory import Layout, Need, estimate
from sft.system.texts import Said, alternatives

FOUR_BIT = {
    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}  # fmt: skip
"""Left out, the type to compute in would be fp32: slower, and larger."""


class Change(NamedTuple):
    """Settings as one would write them on the command line, and what training then needs."""

    settings: list[str]
    need: Need


def fitting_changes(
    layout: Layout,
    need_of: Callable[[Layout], Need],
    limit: float,
    may_quantise: bool = True,
    may_checkpoint: bool = True,
    four_bit: Mapping[str, Any] = FOUR_BIT,
) -> list[Change]:
    """The changes of `layout` that bring the need to at most `limit` bytes, by the same estimate; [] if none does.

    All single changes that suffice (one row at a time, activations computed again, 4-bit weights), else the first
    combination of the fewest, else all of them with the longest `max_length` that fits.
    """
    changes: list[tuple[list[str], dict[str, Any]]] = []
    if layout.rows > 1:
        changes.append((["training.per_device_train_batch_size=1"], {"rows": 1}))
    if may_checkpoint and not layout.checkpointing:
        changes.append((["training.activation_checkpointing=true"], {"checkpointing": True}))
    if may_quantise and not (layout.quantization or {}).get("load_in_4bit"):
        words = ["quantization.load_in_8bit=false"] if layout.quantization else []
        words += [f"quantization.{key}={str(value).lower()}" for key, value in four_bit.items()]
        changes.append((words, {"quantization": four_bit}))
    lengths = [2**power for power in range(int(math.log2(max(layout.length - 1, 1))), 6, -1)]
    shorter = [(*changes, ([f"training.max_length={length}"], {"length": length})) for length in lengths]

    def fitting(candidates: Iterable[Any]) -> Iterator[Change]:
        for chosen in candidates:
            need = need_of(layout._replace(**dict(ChainMap(*(fields for _, fields in chosen)))))
            if need.total <= limit:
                yield Change([word for words, _ in chosen for word in words], need)

    several = [itertools.combinations(changes, count) for count in range(2, len(changes) + 1)]
    return list(fitting(zip(changes))) or list(itertools.islice(fitting(itertools.chain(*several, shorter)), 1))


def fitting_advice(model: PreTrainedModel, layout: Layout, limit: float) -> Said:
    """`fitting_changes` of a model in words, each with the GB it then needs; empty if nothing fits."""
    changes = fitting_changes(
        layout,
        lambda other: estimate(model, other),
        limit,
        may_quantise=not all(parameter.requires_grad for parameter in model.parameters()),
        may_checkpoint=model.supports_gradient_checkpointing,
        four_bit=FOUR_BIT | {"bnb_4bit_compute_dtype": str(model.dtype).removeprefix("torch.")},
    )
    return alternatives(f"{' '.join(change.settings)} ({change.need.total / GB:.1f} GB)" for change in changes)
