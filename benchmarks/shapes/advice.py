"""Is the planner's advice true? Settings of open-calm-7b that do not fit a card, and what would make them fit."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.shapes.bases import make_base
from sft.config.load import load_config
from sft.model.place import DTYPES
from sft.plan.activations import micro_batch, skeleton
from sft.plan.advice import fitting_changes
from sft.plan.cards import find_card
from sft.plan.memory import COMFORTABLE, estimate


class Case(NamedTuple):
    """A configuration that is too large for a card with these changes."""

    config: str
    overrides: list[str]
    card: str


_KEPT = "training.activation_checkpointing=false"
_ROWS = "training.per_device_train_batch_size"
CASES = (
    Case("configs/calm7b-t4.yaml", [_KEPT], "T4"),
    Case("configs/calm7b.yaml", [_KEPT], "16GB"),
    Case("configs/calm7b.yaml", [_KEPT, f"{_ROWS}=2"], "24GB"),
    Case("configs/calm7b-context.yaml", [_KEPT, f"{_ROWS}=4"], "40GB"),
    Case("configs/calm7b-4bit.yaml", [_KEPT, f"{_ROWS}=8"], "80GB"),
)


def advised(case: Case) -> list[Case]:
    """The case with each of the changes that the planner would advise. Raises AssertionError where there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        make_base(load_config(case.config).model.base, Path(scratch))
        config = load_config(case.config, [f"model.base={scratch}", *case.overrides])
        dtype = DTYPES[config.model.dtype if config.model.dtype != "auto" else "bfloat16"]
        model, limit = skeleton(config, dtype), COMFORTABLE * find_card(case.card).memory
        largest = micro_batch(config, True, config.training["max_length"], dtype)
        too_large = estimate(model, largest).total > limit
        changes = fitting_changes(largest, lambda other: estimate(model, other), limit)
        if not too_large or not changes:
            raise AssertionError("it fits as it is" if changes else "nothing is advised")
        return [case._replace(overrides=case.overrides + change.settings) for change in changes]
