"""Which checkpoint is the best so far, and whether a better one is still waited for (`training.keep_best`, `patience`).

All of it follows from the validations in the trainer's log history, which every checkpoint holds, so that an
interrupted run decides as one that nothing interrupted.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from sft.run.checkpoints import path_of
from sft.system.errors import say, warn
from sft.system.visible import counted


class Best(NamedTuple):
    """The step with the lowest validation loss (the first of equal ones), that loss in nats a token, and how many
    validations came after it."""

    step: int
    loss: float
    since: int


def best_of(history: Sequence[Mapping[str, Any]], by: str) -> Best | None:
    """The best validation of a log history by the loss of a group, or "overall"; None before the first.

    A loss that is no number is worse than any other.
    """
    found = [(record[f"eval_{by}_loss"], record["step"]) for record in history if f"eval_{by}_loss" in record]
    losses = [(math.inf if math.isnan(loss) else loss, step) for loss, step in found]
    if not losses:
        return None
    loss, step = min(losses)
    return Best(step, loss, len(losses) - 1 - losses.index((loss, step)))


class KeepBest(TrainerCallback):
    """Saves a checkpoint at each validation that is the best so far, and ends the training when patience does.

    At the end of an epoch a checkpoint waits for the validation that is due there: a run that goes on from it would
    not do that again.

    Args:
        by: a validation group, or "overall"; None keeps none.
        patience: how many validations in a row may bring no better one; None: any number.
        checkpoints: where they are.
    """

    def __init__(self, by: str | None, patience: int | None, checkpoints: Path) -> None:
        self.by, self.patience, self._checkpoints = by, patience, checkpoints
        self._save_after_validation = False

    def best(self, state: Any) -> Best | None:
        """The best validation so far; None also where none is kept."""
        return best_of(state.log_history, self.by) if self.by else None

    def is_over(self, state: Any) -> bool:
        """Whether patience has ended."""
        best = self.best(state)
        return bool(best and self.patience and best.since >= self.patience)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that had ended when it was killed does no step more; a best checkpoint that is gone is said."""
        self._save_after_validation = False
        control.should_training_stop = self.is_over(state)
        best = self.best(state)
        if state.is_world_process_zero and best and not path_of(self._checkpoints, best.step).is_dir():
            warn([
                f"training.keep_best: step {best.step}, the best by {self.by} so far, has no checkpoint any more; "
                "unless a later one is better, the run cannot end with it"
            ])  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put off saving where the epoch ends here, and a validation comes first."""
        ends = state.epoch == int(state.epoch) or state.global_step >= state.max_steps
        if control.should_save and args.eval_strategy == "epoch" and ends:
            control.should_save, self._save_after_validation = False, True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save what was put off."""
        control.should_save |= self._save_after_validation
        self._save_after_validation = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the best so far, or stop waiting for a better one."""
        best = self.best(state)
        if best and best.since == 0:
            control.should_save = True
        if self.is_over(state):
            control.should_training_stop = True
            if state.is_world_process_zero:
                waited = counted(self.patience or 0, "validation")
                say(f"step {state.global_step}: {waited} without a better one than that of step {best.step}; stopping")  # type: ignore[union-attr]
