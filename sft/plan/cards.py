"""GPUs that training may have to fit into."""

import re
from typing import NamedTuple

from sft.system.errors import UserError

GB = 10**9


class Card(NamedTuple):
    """A GPU: its memory in bytes, and its peak in TFLOP/s (None: unknown) with 16-bit matrices and fp32 sums."""

    name: str
    memory: float
    tflops: float | None = None
    bfloat16: bool = True


CARDS = [
    Card("T4", 16 * GB, 65, bfloat16=False),
    Card("V100-16GB", 16 * GB, 125, bfloat16=False),
    Card("V100-32GB", 32 * GB, 125, bfloat16=False),
    Card("RTX3090", 24 * GB, 71),
    Card("RTX4090", 24 * GB, 165),
    Card("L4", 24 * GB, 121),
    Card("A6000", 48 * GB, 155),
    Card("A100-40GB", 40 * GB, 312),
    Card("A100-80GB", 80 * GB, 312),
    Card("H100", 80 * GB, 989),
    Card("H200", 141 * GB, 989),
]
"""NVIDIA's data sheets and architecture white papers: dense tensor cores, without sparsity, SXM where there is one."""


def find_card(text: str) -> Card:
    """A card by name ("RTX3090", "A100-80GB") or by size alone ("24GB"). Raises UserError for anything else."""
    plain = re.sub(r"nvidia|geforce|rtx|[^a-z0-9]", "", text.lower())
    size = re.fullmatch(r"(\d+)(?:gb|gib|g)", plain)
    if size and int(size[1]):
        return Card(f"{size[1]}GB", int(size[1]) * GB)
    for card in CARDS:
        if plain == re.sub(r"rtx|[^a-z0-9]", "", card.name.lower()):
            return card
    raise UserError(
        f"--card {text}: unknown; give its size, such as 24GB, or one of {', '.join(c.name for c in CARDS)}"
    )
