"""One configuration on a GPU that is not there: the model loaded, a step, validation, an answer, a likelihood."""

import contextlib
import dataclasses
import io
import os
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, logging

from benchmarks.shapes.bases import END, WORD, make_base, make_tokenizer
from benchmarks.shapes.driver import plug_in
from benchmarks.shapes.gpu import FakeGpu
from benchmarks.shapes.memory import Allocator
from sft.config.load import load_config
from sft.config.sections import Config
from sft.generation.generate import generate_all
from sft.model.loss import reference_nll
from sft.model.place import resolve_device, resolve_dtype
from sft.plan.activations import Chosen, choose, micro_batch, skeleton
from sft.plan.memory import Layout, Need, estimate, quantised_linears
from sft.plan.prepare import layout
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.training.page import RunPage
from sft.training.samples import SampleAnswers
from sft.training.train import build_trainer, load_model, take, training_arguments

MICRO_BATCHES = 2
PARTS = 8
"""Packed rows are so many times shorter than the longest possible one."""
STEP_WAITS = 2
"""Waits a step, whatever its micro-batches: whether all losses are finite, and the gradient's norm."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What one configuration does on a card; memory in bytes."""

    config: str
    """Path of the file."""
    overrides: list[str]
    card: str
    layout: Layout
    need: Need
    """The planner's figures for the step."""
    loading: int
    """The most alive at once while the model is loaded."""
    step: int
    """The same in an optimizer step that is not the first."""
    answering: int
    """The same in validation, in answers and in likelihoods."""
    reserved: int
    """What PyTorch's allocator holds after the step, by simulation."""
    trained: int
    """Weights."""
    kernels: int
    """A micro-batch."""
    waits: float
    """For the GPU, a micro-batch."""
    allowed_waits: float
    waits_by_place: dict[str, int]
    attention: dict[str, int]
    """Calls by the kernel that PyTorch would choose."""
    holders: dict[str, int]
    """Bytes at the step's peak by the lines that took most of them."""
    in_fp32: bool
    """Whether all trained weights are."""
    seconds: float
    """Of one core."""


def measure(path: str, overrides: list[str], card: str) -> Found:
    """Take a configuration through its step on `card`, in a process that does nothing else; silent."""
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # other threads do not see the GPU
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    gpu = plug_in(card)
    with contextlib.ExitStack() as stack:
        for context in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(context(io.StringIO()))
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        base = Path(scratch) / "base"
        make_base(load_config(path).model.base, base)
        config = load_config(path, [
            f"model.base={base}", "model.tokenizer=null", "model.revision=null", f"run.directory={scratch}/run",
            "training.num_train_epochs=1", "training.save_strategy=no", "training.eval_strategy=no",
            "training.warmup_steps=0", *overrides,
        ])  # fmt: skip
        config.run_directory.mkdir()
        stack.enter_context(gpu)
        return _Run(gpu, config).found(path, overrides, card)


class _Steps(TrainerCallback):
    """Counts kernels and waits of a step, its gradients' norm included, as if it were not the first one."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def on_step_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """Let the optimizer hold the moments that a first step leaves behind."""
        plain = optimizer.optimizer  # below accelerate's
        for group in plain.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        plain.step()
        plain.zero_grad()
        self.before = self.gpu.kernels
        self.gpu.waits.clear()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Note what was counted."""
        self.kernels, self.waits = self.gpu.kernels - self.before, dict(self.gpu.waits)


class _Run:
    """A configuration on its way through everything that a training and an evaluation do on a GPU."""

    def __init__(self, gpu: FakeGpu, config: Config) -> None:
        self.gpu, self.config = gpu, config
        self.device = resolve_device(config.model.device)
        self.dtype = resolve_dtype(config.model.dtype, self.device)
        self.packed, _ = layout(config)
        self.tokenizer = make_tokenizer()

    def found(self, path: str, overrides: list[str], card: str) -> Found:
        """Go all of it, and tell what was counted."""
        started = time.process_time()
        largest, need, allowed = self.planned()
        trainer, loading = self.trainer(Chosen(largest.checkpointing, largest.rows))
        counts = _Steps(self.gpu)
        trainer.add_callback(counts)
        trainer.train()
        step, holders = self.peak(), dict(self.gpu.memory.holders.most_common(8))
        reserved = Allocator().replay(self.gpu.memory.log)
        trainer.evaluate()
        self.answer(trainer.model.eval())
        trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        return Found(
            config=path, overrides=overrides, card=card, layout=largest, need=need, loading=loading, step=step,
            answering=self.peak(), reserved=reserved, trained=sum(parameter.numel() for parameter in trained),
            kernels=counts.kernels // MICRO_BATCHES, waits=sum(counts.waits.values()) / MICRO_BATCHES,
            allowed_waits=allowed, waits_by_place=counts.waits, attention=dict(self.gpu.chosen), holders=holders,
            in_fp32=bool(trained) and all(parameter.dtype == torch.float32 for parameter in trained),
            seconds=time.process_time() - started,
        )  # fmt: skip

    def peak(self) -> int:
        """The most alive since the last call."""
        memory = self.gpu.memory
        found, memory.peak = memory.peak, memory.now
        return found

    def planned(self) -> tuple[Layout, Need, float]:
        """The micro-batch as the training decides it, the planner's figures for it, and the waits that it may have."""
        config, longest = self.config, self.config.training["max_length"]
        checkpointing, rows = choose(config, self.packed, longest, self.device, self.dtype)
        largest = micro_batch(config, self.packed, longest, self.dtype)
        largest = largest._replace(checkpointing=checkpointing, rows=rows)
        model = skeleton(config, self.dtype)
        waits = STEP_WAITS / MICRO_BATCHES
        settings = config.quantization or {}
        if settings.get("load_in_8bit") and settings.get("llm_int8_threshold", 6.0) > 0:
            # bitsandbytes asks in each forward pass of a layer whether there are outliers, and where.
            waits += 2 * len(list(quantised_linears(model, settings))) * (1 + checkpointing)
        return largest, estimate(model, largest), waits

    def trainer(self, chosen: Chosen) -> tuple[Any, int]:
        """The trainer with its model, and the most that was alive while that was loaded."""
        manifest: Any = SimpleNamespace(started="")
        plan = self.plan()
        arguments = training_arguments(self.config, self.device, self.dtype, plan)
        take(arguments, *chosen)
        model = load_model(self.config, self.device, self.dtype)
        loading = self.peak()
        self.gpu.memory.holders.clear()
        trainer = build_trainer(self.config, plan, model, arguments, manifest)
        for shown in (RunPage, SampleAnswers):  # what people look at, of rows that are not there
            trainer.remove_callback(shown)
        return trainer, loading

    def plan(self) -> Any:
        """Rows that fill micro-batches to the last token, each of them supervised: the most there can be."""
        training = self.config.training
        length, rows = training["max_length"], training["per_device_train_batch_size"] * MICRO_BATCHES
        # No two rows begin alike, and padded ones are of different length, so that there is padding.
        lengths = [length // PARTS] * (rows * PARTS) if self.packed else [length - number for number in range(rows)]
        encoded = Dataset.from_list([
            {"index": str(number), "input_ids": [WORD + number] * size, "labels": [WORD + number] * size}
            for number, size in enumerate(lengths)
        ])  # fmt: skip
        validation = encoded.select(range(len(encoded) * training["per_device_eval_batch_size"] // rows))
        settings = (length, self.config.data.truncation, training["train_on_inputs"])
        encoder = RowEncoder(self.tokenizer, FormattingFunction(ALPACA_JA), *settings)
        return SimpleNamespace(
            train=SimpleNamespace(rows=encoded), validation={"context": validation}, tokenizer=self.tokenizer,
            encoder=encoder, steps=1, packed=self.packed,
        )  # fmt: skip

    def answer(self, model: Any) -> None:
        """Answers of two tokens, and likelihoods, as `python -m eval` has them computed."""
        prompts = [[WORD] * length for length in (500, 400)]
        settings = self.config.generation | {"max_new_tokens": 2}
        answers = list(generate_all(model, self.tokenizer, prompts, [settings], self.config.eval.batch_tokens))
        if [answer.tokens for _, _, answer in answers] != [2, 2]:
            raise AssertionError(f"answers of two tokens were asked for: {answers}")
        reference_nll(model, self.tokenizer.pad_token_id, prompts, [[WORD] * 20 + [END]] * len(prompts))
