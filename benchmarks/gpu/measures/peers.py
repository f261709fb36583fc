"""Others' training on the same weights (bf16), adapter and rows, in as many micro-batches as this project has bins."""

import tempfile
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import pack_dataset

from benchmarks import trainers
from benchmarks.gpu.measures.training import loaded, skeleton
from benchmarks.gpu.step import speed, work_of
from benchmarks.gpu.work import Measures, Work
from sft.plan.activations import fitting, free_bytes
from sft.plan.memory import Layout, flops_per_token
from sft.prompt.encoded_rows import row_lengths


def measures(work: Work, part: str) -> Measures:
    """transformers' Trainer with rows of similar length together, in two ways, and TRL's packing."""
    model, plain = loaded(work, "bf16"), skeleton(work)
    for strategy in ("group_by_length", "batch_rebalance"):
        yield f"Trainer, {strategy}", partial(balanced, work, model, plain, strategy)
    yield "TRL, packing", partial(trl_packed, work, model, plain)


def balanced(work: Work, model: Any, plain: PreTrainedModel, strategy: str) -> dict[str, Any]:
    """transformers' Trainer, padded, with the logits of every position."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = work_of(work, model, scratch, train_sampling_strategy=strategy)
        lengths = row_lengths(prepared.encoded)
        rows = -(-len(lengths) // -(-sum(lengths) // work.size.max_length))
        prepared.tokenizer.padding_side = "right"  # on the left, labels would be predicted from padding
        prepared = prepared._replace(micro_batch=rows)
        return measured(work, prepared, plain, Layout(rows, max(lengths), False, None), trainers.alpaca)


def trl_packed(work: Work, model: Any, plain: PreTrainedModel) -> dict[str, Any]:
    """SFTTrainer with its packing (best fit decreasing), all bins in one step, and its own defaults otherwise."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = work_of(work, model, scratch, packing=True, per_device_train_batch_size=1)
        columns = prepared.encoded.select_columns(["input_ids", "labels"])
        prepared.settings["gradient_accumulation_steps"] = len(pack_dataset(columns, work.size.max_length, "bfd"))
        return measured(work, prepared, plain, Layout(1, work.size.max_length, False, None, "dense"), trainers.trl)


def measured(work: Work, prepared: trainers.Work, plain: PreTrainedModel, layout: Layout, make: Any) -> dict[str, Any]:
    """Speed and peaks, with activations computed again where this project would."""
    again = fitting(plain, layout, free_bytes(work.device), True).checkpointing
    prepared.settings["activation_checkpointing"] = again
    settings = prepared.settings
    micro_batch = settings.get("per_device_train_batch_size", prepared.micro_batch)
    found = {"micro_batch": micro_batch, "checkpointing": again, "flops_per_token": flops_per_token(plain, False)}
    torch.manual_seed(0)
    return speed(work, prepared, make) | found
