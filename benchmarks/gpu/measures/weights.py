"""A base model of open-calm-7b's shape with random weights, for machines that have no hub."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.gpu.work import Measures, Size, Work, random_base
from sft.build_base import build_tiny
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.system.errors import UserError


def measures(work: Work, part: str) -> Measures:
    """Make the base model, unless it is there or another one was named."""
    yield "random weights", partial(made, work)


def made(work: Work) -> dict[str, Any]:
    """Make the base model, unless it is there. Raises UserError where another one is measured."""
    target = Path(work.base)
    if target != random_base(work.data, work.size):
        raise UserError(f"{work.base} is measured")
    if not target.exists():
        build(target, work.size, work.data, work.device)
    return {"bytes": sum(file.stat().st_size for file in target.iterdir())}


def build(directory: Path, size: Size, data: str, device: torch.device) -> None:
    """Write the model in bf16, whole or not at all. Raises UserError where the disk has no room for it."""
    aside = directory.with_name(f".{directory.name}")
    shutil.rmtree(aside, ignore_errors=True)
    loaded = load_data(data)
    texts = [text for e in examples_of(loaded.rows) for text in (e.instruction, e.input, e.output)]
    build_tiny(aside, texts, size.shape["vocab_size"], layers=1, width=32, heads=1)  # for its tokenizer
    config = AutoConfig.from_pretrained(aside, **size.shape)
    with torch.device("meta"):
        needed = 2 * AutoModelForCausalLM.from_config(config).num_parameters()
    if shutil.disk_usage(aside).free < 1.05 * needed:
        shutil.rmtree(aside)
        raise UserError(f"{directory}: needs {needed / 1e9:.0f} GB of disk; make room, or name a model with --base")
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(aside, max_shard_size="2GB")  # a shard is in memory while it is written
    os.rename(aside, directory)
