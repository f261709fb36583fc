"""Speed and memory of this project's training with one kind of weights, packed in each way."""

import tempfile
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import trainers, training
from benchmarks.gpu.parts import FORMS, Form
from benchmarks.gpu.step import attending, speed, work_of
from benchmarks.gpu.work import Measures, Weights, Work, quantization
from sft.model.load import load_base, load_skeleton
from sft.model.lora import add_lora, base_of
from sft.plan.activations import fitting, free_bytes
from sft.plan.memory import Layout, estimate, flops_per_token

LORA = training.LORA | {"lora_dropout": 0.05}
"""As in configs/calm7b.yaml."""


def measures(work: Work, part: str) -> Measures:
    """A measure for each way to keep packed rows apart; `part` names the weights."""
    weights: Any = part
    model = loaded(work, weights)
    plain = skeleton(work)
    for form in FORMS:
        yield form, partial(packed, work, model, plain, weights, form)


def loaded(work: Work, weights: Weights) -> Any:
    """The base model on the device with a fresh adapter."""
    model = load_base(work.base, work.device, torch.bfloat16, quantization(weights))
    torch.manual_seed(0)
    return add_lora(model, LORA)


def skeleton(work: Work) -> PreTrainedModel:
    """The same without weights, for the arithmetic and the planner."""
    return base_of(add_lora(load_skeleton(work.base, torch.bfloat16), LORA))


def packed(work: Work, model: Any, plain: PreTrainedModel, weights: Weights, form: Form) -> dict[str, Any]:
    """One way: speed, peaks, and what the planner says of the same bins."""
    layout = Layout(
        1, work.size.max_length, False, quantization(weights), form="dense" if form == "dense" else "documents"
    )
    again = fitting(plain, layout, free_bytes(work.device), True).checkpointing
    with tempfile.TemporaryDirectory() as scratch:
        prepared = attending(work_of(work, model, scratch, activation_checkpointing=again), form)
        trainer = trainers.ours(prepared)
        bins = [
            batch["input_ids"].numel() for step in trainer.get_train_dataloader() for batch in step["micro_batches"]
        ]
        found = speed(work, prepared, lambda _: trainer)
    need = estimate(plain, layout._replace(length=max(bins), checkpointing=again))
    return found | {
        "bins": bins,
        "checkpointing": again,
        "planned_allocated": need.total - need.rest,
        "planned": need.total,
        "flops_per_token": flops_per_token(plain, checkpointing=False),
    }
