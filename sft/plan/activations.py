"""What the memory that is free decides: how large micro-batches are, and whether activations are kept."""

import math
import os
from typing import NamedTuple

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from sft.config.sections import Config
from sft.model.load import load_skeleton
from sft.model.lora import add_lora, train_all
from sft.model.place import resolve_dtype
from sft.plan.advice import fitting_advice
from sft.plan.cards import GB
from sft.plan.memory import COMFORTABLE, Form, Layout, estimate
from sft.system.errors import warn
from sft.system.memory import available_bytes
from sft.system.processes import RANK, WORLD_SIZE, divided_by
from sft.system.visible import counted

SMALL = 4096
"""Tokens of a micro-batch below which smaller ones cost more than activations that are computed again."""


def micro_batch(config: Config, packed: bool, longest: int, dtype: torch.dtype, form: Form = "dense") -> Layout:
    """The largest micro-batch there can be, with its activations kept where the setting is auto.

    `longest` is the longest row in tokens, `form` how packed rows are kept apart where the configuration does not say.
    """
    training = config.training
    form = {"auto": form, "dense": "dense"}.get(training["packed_attention"], "documents")
    return Layout(
        rows=training["per_device_train_batch_size"],
        length=training["max_length"] if packed else longest,
        checkpointing=training["activation_checkpointing"] is True,
        quantization=config.quantization,
        form=form if packed else "padded",
        # transformers switches it on for fp16; weights that are all trained are fp32.
        autocast=dtype if dtype == torch.float16 or (config.lora is None and dtype == torch.bfloat16) else None,
    )


class Chosen(NamedTuple):
    """What was left to the machine: it changes how a step is computed and rounded, not what it computes."""

    checkpointing: bool
    """Whether activations are computed again in the backward pass."""
    rows: int
    """Rows of a micro-batch, at most `training.per_device_train_batch_size`; a bin is so many `max_length`."""


def fitting(model: PreTrainedModel, layout: Layout, free: float, may_checkpoint: bool, sharers: int = 1) -> Layout:
    """The layout as it is where training takes at most COMFORTABLE of `free` bytes, else the first that does.

    Micro-batches become smaller as long as they have SMALL tokens, since that costs least; then activations are
    computed again, if that `may` be; then micro-batches become smaller still, down to a row: the last, if none fits.
    `model` is as `sft.plan.memory.estimate` takes it, its weights divided among so many `sharers`.
    """
    rows = [layout.rows >> halvings for halvings in range(layout.rows.bit_length())]
    layouts = [layout._replace(rows=each) for each in rows if each == layout.rows or each * layout.length >= SMALL]
    if may_checkpoint and model.supports_gradient_checkpointing:
        layout = layout._replace(checkpointing=True)
    smaller = (layout._replace(rows=each) for each in rows)
    layouts += [each for each in smaller if each not in layouts]  # none is estimated twice
    return next((each for each in layouts if needed(model, each, sharers) <= COMFORTABLE * free), layouts[-1])


def needed(model: PreTrainedModel, layout: Layout, sharers: int = 1) -> float:
    """Bytes that training takes of one device, the weights divided among so many `sharers`."""
    need = estimate(model, layout)
    return need.total - need.weights * (1 - 1 / sharers)


def choose(config: Config, packed: bool, longest: int, device: torch.device, dtype: torch.dtype) -> Chosen:
    """What fits into the memory that is free on `device` now; where it is not what the configuration says, or nothing
    fits, this says so. All processes call it together, and decide by the one that has the least."""
    model = skeleton(config, dtype)
    asked = micro_batch(config, packed, longest, dtype, "documents" if device.type == "cpu" else "dense")
    free, sharers = free_bytes(device), WORLD_SIZE if divided_by() else 1
    if WORLD_SIZE > 1:
        free = min(gather_object([free]))
    found = fitting(model, asked, free, config.training["activation_checkpointing"] == "auto", sharers)
    if RANK == 0 and found != asked:
        need = needed(model, asked, sharers)
        print(f"{_difference(found, asked)}: as configured, training would take {_beside(need, free)}")
    if RANK == 0 and device.type == "cpu":  # the doctor's lines say it of a GPU
        need = needed(model, found, sharers)
        remedy = "end other programs, or take a smaller model or training.max_length"
        warn([f"training takes {_beside(need, free)}: {remedy}"] if need > COMFORTABLE * free else [])
    return Chosen(found.checkpointing, found.rows)


def _beside(need: float, free: float) -> str:
    """What is too much beside what is free, in words."""
    reserve = "" if need > free else ", a tenth of which should stay free"
    return f"about {need / GB:.1f} GB, and {free / GB:.1f} GB are free{reserve}"


def _difference(found: Layout, asked: Layout) -> str:
    """What was chosen otherwise, in words."""
    words = []
    if found.rows != asked.rows:
        words.append(f"micro-batches of at most {found.rows} in place of {counted(asked.rows, 'row')}")
    if found.checkpointing != asked.checkpointing:
        words.append("activations computed again in the backward pass")
    return " and ".join(words)


def skeleton(config: Config, dtype: torch.dtype) -> PreTrainedModel:
    """The model without weights, made ready for `sft.plan.memory.estimate`."""
    model = load_skeleton(config.model.base, dtype, **config.model.loading)
    train_all(model) if config.lora is None else add_lora(model, config.lora)
    return model


def less_memory(config: Config, packed: bool, longest: int, device: torch.device, chosen: Chosen) -> str:
    """What to set after the memory of `device` did not suffice for what was `chosen`: the smallest changes that fit by
    the same estimate."""
    dtype = resolve_dtype(config.model.dtype, device)
    model, layout = skeleton(config, dtype), micro_batch(config, packed, longest, dtype)
    layout = layout._replace(checkpointing=chosen.checkpointing, rows=chosen.rows)
    need = estimate(model, layout).total
    # Whatever the estimate says of what was tried, what is to fit must need clearly less.
    advice = fitting_advice(model, layout, 0.85 * min(need, free_bytes(device)))
    if not advice:
        return "no setting makes it fit; take a smaller model or a larger GPU"
    return f"set {advice} (by estimate, where {need / GB:.1f} GB were not enough), and start again with --force"


def free_bytes(device: torch.device) -> float:
    """What this process can have of a GPU's memory, or of the machine's, what it holds of a GPU already included.

    Processes that share a card, or the machine, share what is free alike.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free / math.ceil(processes / torch.cuda.device_count()) + torch.cuda.memory_reserved(device)
    return available_bytes() / processes
