"""The model that is measured where no other is named: a random GPT-NeoX as wide as open-calm-small, half as deep."""

from pathlib import Path

from sft.build_base import build_tiny
from sft.data import load_data

RANDOM_BASE = Path("scratch/benchmark-gpt-neox")


def ensure_random_base(data: str) -> None:
    """Make it where it is not there yet, with a vocabulary of 52,096 learned from the texts of `data`."""
    if not RANDOM_BASE.exists():
        texts = [text for e in load_data(data).examples for text in (e.instruction, e.input, e.output)]
        build_tiny(RANDOM_BASE, texts, vocabulary=52_096, layers=6, width=768, heads=12)
