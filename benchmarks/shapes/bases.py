"""Base models at their real shapes: a directory as from the hub, with weights that take no room on the disk."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from sft.system.errors import UserError

SHAPES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("bases.yaml").read_text(encoding="utf-8"))
END, PADDING, WORD = 0, 1, 5
_FILE_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def make_base(hub_id: str, directory: Path) -> None:
    """Make the model of this hub id in `directory`. Raises UserError where its shape is not known."""
    if hub_id not in SHAPES:
        raise UserError(f"{hub_id}: its shape is not in benchmarks/shapes/bases.yaml; add config.json's facts")
    facts = dict(SHAPES[hub_id])
    config = AutoConfig.for_model(facts.pop("model_type"), **facts, eos_token_id=END, pad_token_id=PADDING)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, facts["dtype"]))
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    _write_zeros(model, directory / "model.safetensors", facts["dtype"])


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one word: rows come as ids."""
    words = Tokenizer(models.WordLevel({"<end>": END, "<pad>": PADDING, "word": WORD}, unk_token="word"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>", unk_token="word")


def _write_zeros(model: torch.nn.Module, path: Path, dtype: str) -> None:
    """A safetensors file of the model's weights, each stored once, with a hole where their bytes are."""
    header, end = {}, 0
    for name, parameter in model.named_parameters():  # weights that two layers share come once
        start, end = end, end + parameter.nbytes
        header[name] = {"dtype": _FILE_TYPES[dtype], "shape": list(parameter.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
