"""Optimizer steps of one trainer: how long they take, what memory they need, which gradient they find."""

import inspect
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import Trainer, TrainerCallback

from benchmarks import trainers
from benchmarks.gpu.parts import Form
from benchmarks.gpu.work import Work, forget, peaks
from sft.prompt.encoded_rows import row_lengths
from sft.system.errors import UserError


class Clock(TrainerCallback):
    """Seconds of each step, from its rows at hand to its weights changed on the device."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(self._now() - self._begun)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def work_of(work: Work, model: Any, scratch: str, packed: bool = True, **settings: Any) -> trainers.Work:
    """What `benchmarks.trainers` makes trainers of: this model, the rows of a step, and settings of the library."""
    encoder, encoded = work.encoded()
    arguments: Any = SimpleNamespace(only="packed" if packed else "padded", max_length=work.size.max_length)
    shared = {
        "output_dir": scratch, "use_cpu": not work.on_gpu, "bf16": False, "num_train_epochs": work.size.steps,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "dataloader_pin_memory": work.on_gpu,
        "disable_tqdm": True,
    }  # fmt: skip
    return trainers.Work(arguments, model, encoder.tokenizer, encoder, encoded, shared | settings)


def attending(prepared: trainers.Work, form: Form) -> trainers.Work:
    """The same with rows kept apart so. Raises UserError where this PyTorch's varlen kernel is not the one called."""
    missing = {"scale", "window_size", "enable_gqa"} - inspect.signature(varlen_attn).parameters.keys()
    if form == "varlen" and missing:
        raise UserError(f"varlen_attn of torch {torch.__version__} has no {', '.join(sorted(missing))}")
    return prepared._replace(attention=form)


def train(trainer: Trainer) -> None:
    """Train. A training that breaks off, as where a loss is not finite, has failed, and is nothing to leave out."""
    try:
        trainer.train()
    except UserError as error:
        raise RuntimeError(str(error)) from error


def speed(work: Work, prepared: trainers.Work, make: Callable[[trainers.Work], Trainer]) -> dict[str, Any]:
    """Train all steps with the trainer that `make` makes: useful tokens/s (median of the steps), and peaks."""
    trainer = make(prepared)
    clock = Clock()
    trainer.add_callback(clock)
    stays = forget(work.device)
    train(trainer)
    rows = list(row_lengths(prepared.encoded))
    seconds = statistics.median(clock.seconds[1:])
    found = {"row_tokens": rows, "seconds": seconds, "tokens_per_second": sum(rows) / seconds, "loaded": stays}
    return found | peaks(work.device)
