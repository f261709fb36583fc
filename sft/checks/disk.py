"""Whether the disk has room for what a training will write, before it has begun."""

import math
import shutil
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from sft.checks.doctor import Line
from sft.config.sections import Config
from sft.plan.prepare import Plan
from sft.system.files import directory_size
from sft.system.texts import said
from sft.system.visible import bytes_shown

WEIGHT_BYTES, OPTIMIZER_BYTES = 4, 8
"""A trained weight in a checkpoint, in fp32, and AdamW's two moments of it; other optimizers keep less."""
TOKEN_BYTES = 128
"""A token in the tokenizer's files, which lie in every checkpoint: Gemma's take so many, open-calm's half of it."""


class Room(NamedTuple):
    """Bytes that a run needs at once: so many checkpoints of one size, and what it ends with."""

    checkpoints: int
    checkpoint: int
    learned: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints * self.checkpoint + self.learned


def disk(config: Config, plan: Plan, model: PreTrainedModel) -> Line:
    """Whether the run fits the disk that its directory is on; a run that is there already goes or is gone on with."""
    need, run = room(config, plan, model), config.run_directory
    place = next(path for path in (run.absolute(), *run.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    sizes = {"total": need.total, "checkpoint": need.checkpoint, "learned": need.learned, "free": free}
    shown = {name: bytes_shown(size) for name, size in sizes.items()}
    found = said("doctor.disk", number=need.checkpoints, **shown)
    if free >= need.checkpoint and free + directory_size(run) >= need.total:
        return Line("green", "disk", found)
    return Line("red", "disk", said("doctor.disk_full", found=found, place=place), said("doctor.disk_remedy"))


def room(config: Config, plan: Plan, model: PreTrainedModel) -> Room:
    """What the run will write. `model` has no weights, and LoRA on top."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    files = TOKEN_BYTES * len(plan.tokenizer)
    whole = config.lora is not None or config.model.dtype == "float32"
    learned = trained * (WEIGHT_BYTES if whole else WEIGHT_BYTES // 2) + files
    return Room(
        checkpoints=checkpoints_at_once(config.training, plan.steps),
        checkpoint=trained * (WEIGHT_BYTES + OPTIMIZER_BYTES) + files,
        learned=learned,
    )


def checkpoints_at_once(training: dict[str, Any], steps: int) -> int:
    """The most checkpoints that are there at one time, the one being written and the best included."""
    limit, keeps_best = training["save_total_limit"], bool(training.get("keep_best"))
    saved = max(1, _times(training, "save", steps)) + keeps_best * _times(training, "eval", steps)
    return min(saved, limit + 1 + keeps_best) if limit else saved


def _times(training: dict[str, Any], what: str, steps: int) -> int:
    """How often a training saves, or validates."""
    if training[f"{what}_strategy"] == "epoch":
        return math.ceil(training["num_train_epochs"])
    if training[f"{what}_strategy"] == "no":
        return 0
    every = training.get(f"{what}_steps") or training["logging_steps"]
    return math.ceil(steps / (every if every >= 1 else math.ceil(steps * every)))
