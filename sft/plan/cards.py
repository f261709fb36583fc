"""GPUs that training may have to fit into."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from sft.system.errors import UserError

GB = 10**9


class Card(NamedTuple):
    """A GPU: its memory in bytes, and its peak in TFLOP/s (None: unknown) with 16-bit matrices and fp32 sums."""

    name: str
    memory: float
    tflops: float | None = None
    bfloat16: bool = True


_TABLE = yaml.safe_load(Path(__file__).with_name("cards.yaml").read_text(encoding="utf-8"))
CARDS = [Card(name, gigabytes * GB, *more) for name, (gigabytes, *more) in _TABLE.items()]

_OLDER = re.compile(r"(tesla|quadro)?(g?v100|titan(v|xp?)|p(100|40|4|6000)|m(40|60)|k(40|80)|gtx(9|10)\d\d)")


def find_card(text: str) -> Card:
    """A card by name ("RTX3090", "A100-80GB") or by size alone ("24GB"). Raises UserError for anything else.

    Volta (V100) and older are refused with their reason: PyTorch as the package index has it does not run on them.
    """
    plain = re.sub(r"nvidia|geforce|rtx|[^a-z0-9]", "", text.lower())
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:gb|gib|g)", text.strip().lower())
    if size and float(size[1]):
        return Card(f"{size[1]}GB", float(size[1]) * GB)
    for card in CARDS:
        if plain == re.sub(r"rtx|[^a-z0-9]", "", card.name.lower()):
            return card
    if _OLDER.match(plain):
        remedy = "with PyTorch for CUDA 12.6 (docs/installing.md) it is planned for by its size, such as 16GB"
        raise UserError(f"--card {text}: CUDA 13, which the pinned PyTorch is built with, has dropped it; {remedy}")
    names = ", ".join(card.name for card in CARDS)
    raise UserError(f"--card {text}: unknown; give its size, such as 24GB, or one of {names}")
