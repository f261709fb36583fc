"""What the parts share: the sizes, the base model and its rows, the device and its memory."""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import FIELDS
from sft.data.rows import select
from sft.model.load import load_tokenizer
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.system.files import text_sha256

Measures = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Name and function of each measure of a part. A function gives the measure's values, under `problem` what is wrong
with them; it raises UserError where there is nothing to measure."""

Weights = Literal["bf16", "nf4", "int8"]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    name: str
    shape: dict[str, int]
    """GPTNeoXConfig's arguments for the random base model."""
    exact_layers: int
    """Layers of it for the comparison with fp32, which takes twice the memory."""
    row_tokens: tuple[int, ...]
    """Tokens of the rows of an optimizer step, which are the sample's made so long; of other data, as many rows."""
    max_length: int
    steps: int
    """Optimizer steps a measure; the first one is not timed."""
    prompts: int
    new_tokens: int
    """Tokens of an answer of fixed length; of their own length, answers have at most twice as many."""
    budgets: tuple[int, int]
    """Padded tokens, those of the answers included, of a small batch of prompts and of a large one."""


SAMPLE = "data/sample.jsonl"
DOLLY = (
    42, 47, 50, 53, 57, 61, 66, 71, 76, 81, 86, 91, 97, 103, 110, 117, 124, 133, 143, 154, 165, 178, 191, 205, 222, 244,
    269, 300, 338, 400, 504, 755,
)  # fmt: skip
"""The lengths of dolly-ja's rows at 32 evenly spaced quantiles, by a byte-level BPE of 52,224 words trained on them."""
CALM7B = Size(
    "open-calm-7b",
    {
        "vocab_size": 52_224, "hidden_size": 4096, "intermediate_size": 16_384, "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    exact_layers=4, row_tokens=DOLLY, max_length=2048, steps=4, prompts=64, new_tokens=64, budgets=(4096, 12_288),
)  # fmt: skip
TINY = Size(
    "tiny",
    {
        "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    exact_layers=2, row_tokens=(40, 80, 160, 200), max_length=256, steps=2, prompts=3, new_tokens=3,
    budgets=(256, 1024),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is measured, and on what."""

    device: torch.device
    size: Size
    base: str
    """A hub id, or a directory."""
    data: str

    @property
    def on_gpu(self) -> bool:
        """Whether there is anything to say about a GPU's memory."""
        return self.device.type == "cuda"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's."""
        return load_tokenizer(self.base)

    def encoded(self) -> tuple[RowEncoder, Dataset]:
        """The rows of a step, prompt and answer supervised, and what made them.

        The sample's rows are shorter than real ones: each is repeated, or cut, to a length of `Size.row_tokens`.
        """
        encoder = RowEncoder(self.tokenizer(), FormattingFunction(ALPACA_JA), self.size.max_length, "context", True)
        rows = select(load_data(self.data).rows, slice(len(self.size.row_tokens))).select_columns(list(FIELDS))
        encoded = encoder.encode(rows).rows
        return encoder, as_long(encoded, self.size.row_tokens) if self.data == SAMPLE else encoded


def as_long(rows: Dataset, tokens: Sequence[int]) -> Dataset:
    """The rows with so many tokens each: their own, again and again."""
    made = []
    for row, length in zip(rows, tokens, strict=True):
        times = -(-length // len(row["input_ids"]))
        made.append(row | {name: (row[name] * times)[:length] for name in ("input_ids", "labels")})
    return Dataset.from_list(made)


def random_base(data: str, size: Size) -> Path:
    """Where the random base model of that size is made, its tokenizer trained on the texts of `data`."""
    made_of = text_sha256(json.dumps([load_data(data).sha256, size.shape]))
    return Path(f"scratch/random-{size.name}-{made_of[:12]}")


def quantization(weights: Weights) -> dict[str, Any] | None:
    """How the configurations for open-calm-7b quantise: what is measured is what they say."""
    names = {"bf16": None, "nf4": "calm7b-4bit", "int8": "calm7b"}
    return load_config(f"configs/{names[weights]}.yaml", to_train=False).quantization if names[weights] else None


def forget(device: torch.device) -> int:
    """Give back what nothing uses, count the peak anew, and return the bytes that stay in use on a GPU."""
    if device.type != "cuda":
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peaks(device: torch.device) -> dict[str, Any]:
    """The most bytes in use since `forget`, and the most that PyTorch had taken of the GPU; None on a CPU."""
    if device.type != "cuda":
        return {"peak_allocated": None, "peak_reserved": None}
    return {
        "peak_allocated": torch.cuda.max_memory_allocated(device),
        "peak_reserved": torch.cuda.max_memory_reserved(device),
    }
