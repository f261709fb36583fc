"""Trackers (`training.report_to`): their files stay inside the run, and sample answers reach those that hold texts."""

import importlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from sft.system.errors import UserError, first_line
from sft.system.files import write_whole
from sft.system.processes import RANK
from sft.system.visible import escaped

PLACES = {
    "mlflow": ("MLFLOW_TRACKING_URI", "trackers/mlflow"),
    "tensorboard": ("TENSORBOARD_LOGGING_DIR", "trackers/tensorboard"),
    "trackio": ("TRACKIO_DIR", "trackers/trackio"),
    "wandb": ("WANDB_DIR", "trackers"),
}
"""Tracker → the variable of its own that says where its files go, and where in the run they do if it is not set."""

BEGUN = "trackers/begun.json"
"""In a run: tracker → what finds its record of the run again, once the training has begun."""

COLUMNS = ("row", "group", "question", "reference", "answer", "finish_reason")
"""Of a table of answers."""


def begin_trackers(names: Collection[str], run: Path) -> None:
    """Let each tracker keep its files in the run; called before any is imported, since some look but once."""
    if "mlflow" in names and PLACES["mlflow"][0] not in os.environ:
        # Files need nothing but MLflow's smallest package, which asks for this word before it writes them.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in PLACES.keys() & names:
        variable, place = PLACES[name]
        os.environ.setdefault(variable, str(Path(run, place).absolute()))


def log_in(names: Collection[str]) -> None:
    """Log in where W&B is to be asked, by a prompt if need be. Raises UserError where nobody can."""
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


def remove_links(run: Path) -> None:
    """Remove the links that W&B leaves in the run as shortcuts: one leads to its cache, out of the run, and a run with
    such a link is not read any more (see `check_inside`)."""
    for path in Path(run, PLACES["wandb"][1]).rglob("*"):
        if path.is_symlink():
            path.unlink()


class Begun(TrainerCallback):
    """Notes what each tracker calls this run, for the scores that come later, and leaves no links in it.

    It has to come after the trackers' own callbacks.
    """

    def __init__(self, names: Collection[str], run: Path) -> None:
        self.names, self.run = names, run

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Of the first process, after the trackers have begun."""
        if state.is_world_process_zero and (names := PLACES.keys() & self.names):
            found = {name: record for name in names if (record := _record(name)) is not None}
            Path(self.run, BEGUN).parent.mkdir(exist_ok=True)
            write_whole(self.run / BEGUN, json.dumps(found, sort_keys=True) + "\n")
            remove_links(self.run)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """W&B makes links at its end, too."""
        if state.is_world_process_zero:
            remove_links(self.run)


def _record(name: str) -> dict[str, str | None] | None:
    """What finds a tracker's record of the run that has just begun again; None: it keeps none (WANDB_MODE=disabled)."""
    if name == "tensorboard":
        return {}
    module = importlib.import_module(name)
    if name == "mlflow":
        return {"run_id": module.active_run().info.run_id}
    if name == "wandb":
        run = module.run
        place = {"id": run.id, "project": run.project, "entity": run.entity or None}
        return None if run.disabled else place | {"mode": "offline" if run.offline else "online"}
    run = module.context_vars.current_run.get()
    return {"name": run.name, "project": run.project}


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
    if "mlflow" in names:
        shown: Any = [{name: one[name] for name in COLUMNS} for one in answers]
        importlib.import_module("mlflow").log_dict(shown, f"samples/{step}.json")
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback):
            for one in answers:
                text = f"{escaped(one['question'])}\n\n→ {escaped(one['answer'])} ({one['finish_reason']})"
                callback.tb_writer.add_text(f"samples/{one['group']} {one['row']}", text, step)
