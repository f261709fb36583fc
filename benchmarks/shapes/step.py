"""One configuration on a GPU that is not there: model loaded, an optimizer step, validation, an answer, a likelihood."""

import dataclasses
import os
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import logging

from benchmarks.shapes.bases import END, WORD, make_base, make_tokenizer
from benchmarks.shapes.driver import plug_in
from benchmarks.shapes.gpu import FakeGpu
from benchmarks.shapes.memory import Allocator
from sft.config.load import load_config
from sft.config.sections import Config
from sft.generation.generate import generate_all
from sft.model.loss import reference_nll
from sft.model.place import resolve_device, resolve_dtype
from sft.plan.activations import choose, micro_batch, skeleton
from sft.plan.cards import find_card
from sft.plan.memory import estimate
from sft.plan.prepare import layout
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.training.train import build_trainer, load_model, training_arguments

MICRO_BATCHES = 2
ROWS_A_LENGTH = 8
"""Packed rows are so many times shorter than the longest possible one."""


@dataclasses.dataclass
class Found:
    """What one configuration needs, by phase; memory in bytes."""

    config: str
    card: str
    trained: int
    """Weights."""
    peak: dict[str, int]
    """Most memory at once while the model is loaded, in a step, in validation, in answering and in likelihoods."""
    reserved: int
    """What PyTorch's allocator holds after the step, by simulation."""
    planned: float
    """The planner's figure for the step, without CUDA's own memory and without fragmentation."""
    rest: float
    """The planner's figure for these two."""
    checkpointing: bool
    kernels: int
    """A micro-batch, forward and backward."""
    waits: float
    """A micro-batch."""
    waits_by_place: dict[str, int]
    attention: dict[str, int]
    holders: dict[str, int]
    seconds: float


def measure(path: str, overrides: list[str], card_name: str) -> Found:
    """Take `path` through a step on `card_name`, in a process that does nothing else."""
    started = time.process_time()
    warnings.simplefilter("ignore")
    logging.set_verbosity_warning()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # other threads do not see the GPU
    gpu = plug_in(card_name)
    with tempfile.TemporaryDirectory() as scratch, gpu:
        base = Path(scratch) / "base"
        config = load_config(path)
        make_base(config.model.base, base)
        config = load_config(path, [
            f"model.base={base}", "model.tokenizer=null", f"run.directory={scratch}/run",
            "training.num_train_epochs=1", "training.save_strategy=no", "training.eval_strategy=no",
            "training.warmup_steps=0", "training.disable_tqdm=true", *overrides,
        ])  # fmt: skip
        found = _take_through(config, gpu, find_card(card_name).name)
    found.config, found.seconds = path, time.process_time() - started
    return found


def _take_through(config: Config, gpu: FakeGpu, card: str) -> Found:
    device = resolve_device(config.model.device)
    dtype = resolve_dtype(config.model.dtype, device)
    packed, _ = layout(config)
    plan: Any = _plan(config, packed)
    checkpointing = choose(config, packed, config.training["max_length"], device, dtype)
    largest = micro_batch(config, packed, config.training["max_length"], dtype)._replace(checkpointing=checkpointing)
    need = estimate(skeleton(config, dtype), largest)
    manifest: Any = SimpleNamespace(activation_checkpointing=checkpointing, started="")
    peaks: dict[str, int] = {}

    def phase(name: str) -> None:
        peaks[name], gpu.memory.peak = gpu.memory.peak, gpu.memory.now

    arguments = training_arguments(config, device, dtype, plan, manifest)
    model = load_model(config, device, dtype)
    phase("loading")
    config.run_directory.mkdir()
    trainer = build_trainer(config, plan, model, arguments, manifest)
    step = trainer.training_step

    def counted(*args: Any) -> Any:
        _as_after_a_step(trainer)
        gpu.waits.clear()
        before = gpu.kernels
        loss = step(*args)
        counted.kernels, counted.waits = gpu.kernels - before, dict(gpu.waits)  # type: ignore[attr-defined]
        return loss

    trainer.training_step = counted
    gpu.memory.holders.clear()
    trainer.train()
    phase("step")
    holders = dict(gpu.memory.holders.most_common(8))
    reserved = Allocator().replay(gpu.memory.log)
    trainer.evaluate()
    phase("validation")
    _answer(config, trainer, plan.tokenizer)
    phase("answering")
    trainable = [p for p in trainer.model.parameters() if p.requires_grad]
    wrong = {str(p.dtype) for p in trainable} - {"torch.float32"}
    if wrong or not trainable:
        raise AssertionError(f"trainable weights are {wrong or 'none'}")
    return Found(
        config="", card=card, trained=sum(p.numel() for p in trainable), peak=peaks, reserved=reserved,
        planned=need.total - need.rest, rest=need.rest, checkpointing=checkpointing,
        kernels=counted.kernels // MICRO_BATCHES, waits=sum(counted.waits.values()) / MICRO_BATCHES,
        waits_by_place=counted.waits, attention=dict(gpu.chosen), holders=holders, seconds=0.0,
    )  # fmt: skip


def _plan(config: Config, packed: bool) -> Any:
    """Rows that fill micro-batches to the last token, each token of them supervised: the most there can be."""
    training = config.training
    length, rows = training["max_length"], training["per_device_train_batch_size"] * MICRO_BATCHES
    if packed:
        lengths = [length // ROWS_A_LENGTH] * (rows * ROWS_A_LENGTH)
    else:
        lengths = [length - number for number in range(rows)]  # all different: some are padded
    encoded = [{"index": str(n), "input_ids": [WORD] * size, "labels": [WORD] * size} for n, size in enumerate(lengths)]
    validation = encoded[: len(encoded) * training["per_device_eval_batch_size"] // rows]
    tokenizer = make_tokenizer()
    encoder = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), length, config.data.truncation, True)
    return SimpleNamespace(
        train=SimpleNamespace(rows=Dataset.from_list(encoded)), validation={"context": Dataset.from_list(validation)},
        tokenizer=tokenizer, encoder=encoder, steps=1, packed=packed,
    )  # fmt: skip


def _as_after_a_step(trainer: Any) -> None:
    """Let the optimizer hold the moments that a first step leaves behind."""
    optimizer = trainer.optimizer.optimizer
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _answer(config: Config, trainer: Any, tokenizer: Any) -> None:
    """A batch of answers of two tokens, and one of likelihoods, as `python -m eval` has them computed."""
    model = trainer.model.eval()
    prompts = [[WORD] * length for length in (500, 400)]
    settings = config.generation | {"max_new_tokens": 2}
    answers = list(generate_all(model, tokenizer, prompts, [settings], config.eval.batch_tokens))
    if [answer.tokens for _, _, answer in answers] != [2] * len(prompts):
        raise AssertionError(f"answers of two tokens were asked for: {answers}")
    reference_nll(model, tokenizer.pad_token_id, prompts, [[WORD] * 20 + [END]] * len(prompts))
