"""Whether configurations for a 24 GB card train within 24 GB: whole trainings of one step, PyTorch's memory capped."""

import tempfile
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.work import TINY, Measures, Work, forget, peaks
from sft.config.load import load_config
from sft.config.sections import Config
from sft.model.place import resolve_dtype
from sft.plan.activations import fitting, micro_batch, skeleton
from sft.plan.cards import GB
from sft.plan.memory import estimate
from sft.system.errors import UserError
from sft.training.train import train

CARD = 24 * GB


def measures(work: Work, part: str) -> Measures:
    """The configurations, the one that needs least first; on a CPU with a model of a few MB, without a cap."""
    for name in ("calm7b-4bit", "calm7b", "calm7b-context"):
        yield name, partial(whole_training, work, name)


def whole_training(work: Work, name: str) -> dict[str, Any]:
    """Train one step of a configuration: load, step, validate, save. Raises UserError where 24 GB cannot be capped."""
    if work.on_gpu:
        cap(work.device)
    with tempfile.TemporaryDirectory() as scratch:
        config = configuration(work, name, scratch)
        dtype = resolve_dtype(config.model.dtype, work.device)
        plain = skeleton(config, dtype)
        layout = micro_batch(config, True, 0, dtype)
        if config.training["activation_checkpointing"] == "auto":  # as on a card of 24 GB, whatever card this is
            layout = fitting(plain, layout, CARD, True)
            config.training["activation_checkpointing"] = layout.checkpointing
            config.training["per_device_train_batch_size"] = layout.rows
        forget(work.device)
        problem = ""
        try:
            train(config, resume=False, force=False)
        except (UserError, torch.OutOfMemoryError) as error:
            problem = f"does not train: {error}"
    found = peaks(work.device) | {"checkpointing": layout.checkpointing, "planned": estimate(plain, layout).total}
    if work.on_gpu:
        found["context"] = beside(work.device)
        taken = found["peak_reserved"] + found["context"]
        problem = problem or f"takes {taken / GB:.1f} GB" * (taken > CARD)
    return found | {"problem": problem}


def cap(device: torch.device) -> None:
    """Leave PyTorch what a card of 24 GB would. Raises UserError where the card is smaller."""
    total = torch.cuda.get_device_properties(device).total_memory
    if total < CARD:
        raise UserError(f"the card has {total / GB:.1f} GB")
    torch.zeros(1, device=device)  # begins the driver's context
    torch.cuda.set_per_process_memory_fraction((CARD - beside(device)) / total, device)


def beside(device: torch.device) -> int:
    """Bytes that PyTorch does not count: the driver's context, its kernels, and whatever else is on the card."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def configuration(work: Work, name: str, directory: str) -> Config:
    """The configuration with this base model, these rows, and one step."""
    rows = 2 * len(work.size.row_tokens)  # enough for bins that are nearly full
    words = [
        f"model.base={work.base}", "model.build=null", f"model.device={work.device.type}", f"data.path={work.data}",
        f"data.train_rows={rows}", f"training.total_batch_size={rows}",
        "training.num_train_epochs=1", "training.warmup_steps=0", f"run.directory={directory}/run",
    ]  # fmt: skip
    if work.size == TINY:
        words += [f"training.max_length={work.size.max_length}"]
    return load_config(f"configs/{name}.yaml", words)
