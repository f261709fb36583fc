"""The model that is measured where no other is named: a random GPT-NeoX of open-calm-small's shape."""

from pathlib import Path

from sft.build_base import build_tiny
from sft.data.read import load_data
from sft.data.rows import examples_of

LAYERS = 12


def random_base(data: str) -> Path:
    """Its directory: made where it is not there yet, with a vocabulary of 52,096 learned from the texts of `data`."""
    loaded = load_data(data)
    directory = Path(f"scratch/benchmark-gpt-neox-{LAYERS}-{loaded.sha256[:12]}")
    if not directory.exists():
        texts = [text for e in examples_of(loaded.rows) for text in (e.instruction, e.input, e.output)]
        build_tiny(directory, texts, vocabulary=52_096, layers=LAYERS, width=768, heads=12)
    return directory
