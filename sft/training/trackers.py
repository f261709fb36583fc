"""Trackers (`training.report_to`): their files stay inside the run, and sample answers reach those that hold texts."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from sft.system.errors import UserError, first_line
from sft.system.processes import RANK
from sft.system.visible import escaped

PLACES = {
    "tensorboard": ("TENSORBOARD_LOGGING_DIR", "trackers/tensorboard"),
    "trackio": ("TRACKIO_DIR", "trackers/trackio"),
    "wandb": ("WANDB_DIR", "trackers"),
}
"""Tracker → the variable of its own that says where its files go, and where in the run they do if it is not set."""

COLUMNS = ("row", "group", "question", "reference", "answer", "finish_reason")
"""Of a table of answers."""


def begin_trackers(names: Collection[str], run: Path) -> None:
    """Let each tracker keep its files in the run; called before any is imported, since some look but once.

    Raises UserError where W&B is to be asked and nobody is logged in.
    """
    for name in PLACES.keys() & names:
        variable, place = PLACES[name]
        os.environ.setdefault(variable, str(Path(run, place).absolute()))
    if "wandb" in names and RANK == 0 and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        try:
            wandb.login()
        except wandb.errors.UsageError as error:
            raise UserError(
                f"training.report_to: wandb: {first_line(error)}; or set WANDB_MODE=offline, which keeps all in the run"
            ) from None


def make_places(names: Collection[str], run: Path) -> None:
    """Make the directory that W&B would else replace by one of the system's temporary ones."""
    if "wandb" in names:
        Path(os.environ.get("WANDB_DIR", run)).mkdir(parents=True, exist_ok=True)


class WithoutLinks(TrainerCallback):
    """Removes the links that W&B leaves in the run as shortcuts: one leads to its cache, out of the run, and a run with
    such a link is not read any more (see `check_inside`)."""

    def __init__(self, run: Path) -> None:
        self.place = run / PLACES["wandb"][1]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove them, after W&B's own callback has begun."""
        if state.is_world_process_zero:
            for path in self.place.rglob("*"):
                if path.is_symlink():
                    path.unlink()

    on_train_end = on_train_begin


def report_answers(
    names: Collection[str], callbacks: Sequence[TrainerCallback], step: int, answers: Sequence[dict[str, Any]]
) -> None:
    """Hand a step's sample answers to the trackers that hold texts. `callbacks` are the trainer's own."""
    if "wandb" in names:
        import wandb

        table = wandb.Table(columns=[*COLUMNS], data=[[one[name] for name in COLUMNS] for one in answers])
        wandb.log({"samples": table, "train/global_step": step})
    if "trackio" in names:
        import trackio

        # It reads texts as Markdown.
        rows: list[Any] = [{name: escaped(one[name]) for name in COLUMNS} for one in answers]
        trackio.log({"samples": trackio.Table(data=rows), "train/global_step": step})
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback):
            for one in answers:
                text = f"{escaped(one['question'])}\n\n→ {escaped(one['answer'])} ({one['finish_reason']})"
                callback.tb_writer.add_text(f"samples/{one['group']} {one['row']}", text, step)
