"""Whether activations are kept for the backward pass or computed again in it (`training.activation_checkpointing`)."""

import os

import psutil
import torch
from transformers import PreTrainedModel

from sft.config.sections import Config
from sft.model.load import load_skeleton
from sft.model.lora import add_lora, train_all
from sft.model.place import resolve_dtype
from sft.plan.advice import fitting_advice
from sft.plan.cards import GB
from sft.plan.memory import COMFORTABLE, Form, Layout, estimate
from sft.system.processes import RANK, WORLD_SIZE, divided_by


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


def exceeding(model: PreTrainedModel, layout: Layout, memory: float, sharers: int = 1) -> float | None:
    """Bytes that training takes, where activations are to be computed again for them; None: they are kept.

    They are where training would otherwise take more than COMFORTABLE of `memory` bytes. `model` is as
    `sft.plan.memory.estimate` takes it, its weights divided among so many `sharers`.
    """
    need = estimate(model, layout)
    total = need.total - need.weights * (1 - 1 / sharers)
    return total if model.supports_gradient_checkpointing and total > COMFORTABLE * memory else None


def choose(config: Config, packed: bool, longest: int, device: torch.device, dtype: torch.dtype) -> bool:
    """What to do in a training on `device`; where it is not written in the configuration, this says so.

    It depends on the machine's size and not on what is free at the moment, so that processes agree.
    """
    if config.training["activation_checkpointing"] != "auto":
        return config.training["activation_checkpointing"]
    model = skeleton(config, dtype)
    layout = micro_batch(config, packed, longest, dtype, "documents" if device.type == "cpu" else "dense")
    memory = memory_bytes(device)
    need = exceeding(model, layout, memory, WORLD_SIZE if divided_by() else 1)
    if need and RANK == 0:
        print(
            "activations are computed again in the backward pass: with all of them kept, training would take about "
            f"{need / GB:.1f} of {memory / GB:.1f} GB (training.activation_checkpointing=false keeps them)"
        )
    return need is not None


def skeleton(config: Config, dtype: torch.dtype) -> PreTrainedModel:
    """The model without weights, made ready for `sft.plan.memory.estimate`."""
    model = load_skeleton(config.model.base, dtype, **config.model.loading)
    train_all(model) if config.lora is None else add_lora(model, config.lora)
    return model


def less_memory(config: Config, packed: bool, longest: int, device: torch.device) -> str:
    """What to set after the memory of `device` did not suffice: the smallest changes that fit by the same estimate."""
    dtype = resolve_dtype(config.model.dtype, device)
    model, layout = skeleton(config, dtype), micro_batch(config, packed, longest, dtype)
    need = estimate(model, layout).total
    # Whatever the estimate says of what was tried, what is to fit must need clearly less.
    advice = fitting_advice(model, layout, 0.85 * min(need, memory_bytes(device)))
    if not advice:
        return "no setting makes it fit; take a smaller model or a larger GPU"
    return f"set {advice} (by estimate, where {need / GB:.1f} GB were not enough), and start again with --force"


def memory_bytes(device: torch.device) -> float:
    """The memory of a GPU, or this process's share of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
