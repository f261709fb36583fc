"""What a training says while it runs: a bar, a line a logged step, and the same as JSON lines in `log.jsonl`."""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.trainer_callback import ProgressCallback

from sft.plan.cards import GB
from sft.system.errors import warn
from sft.system.files import write_whole
from sft.system.visible import counted
from sft.system.waiting import EstimatedBar

LOGGED = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "gradient norm", "skipped_steps": "steps left out",
    "tokens_per_second": "tokens/s",
}  # fmt: skip


class RunLog(ProgressCallback):
    """Progress with the time that is left, a line a logged step, and the same as JSON lines in the run's log.

    `tokens_by_step` gives the tokens in each of so many steps, from the training's beginning: rows of a step may be
    long or short, and the time follows their tokens.
    """

    def __init__(self, path: Path, tokens_by_step: Callable[[int], Sequence[int]]) -> None:
        super().__init__()
        self.path = path
        self.tokens_by_step = tokens_by_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)  # a checkpoint's are those of the run as it was begun
        if not state.is_world_process_zero:
            return
        keep_until(self.path, state.global_step)
        tokens = [0, *itertools.accumulate(self.tokens_by_step(state.max_steps))]
        began, first = time.perf_counter(), state.global_step

        def seconds_left() -> float | None:
            step = state.global_step
            done, left = tokens[step] - tokens[first], tokens[-1] - tokens[step]
            return (time.perf_counter() - began) * left / done if done else None

        steps = {"total": state.max_steps, "initial": first}
        self.training_bar = EstimatedBar(seconds_left, **steps, unit="step", desc="training")
        self.current_step = first

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        add_lines(self.path, [{"step": state.global_step, "epoch": state.epoch, **logs}])
        line = log_line(state.global_step, logs)
        if line and self.training_bar is not None:
            self.training_bar.write(line)


def add_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records of a step, each of which says which, to a file of JSON lines."""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of such a file, but for a last one that was cut by what ended the run; none where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def keep_until(path: Path, step: int) -> None:
    """Drop the records of later steps, which a resumed run does again, and a line that was cut."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        write_whole(path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))


def validation_losses(logs: dict[str, float]) -> dict[str, float]:
    """Loss by group in a log record of a validation; empty for all other records."""
    return {key[len("eval_") : -len("_loss")]: loss for key, loss in logs.items() if re.fullmatch("eval_.*_loss", key)}


def validation_rows(logs: dict[str, float]) -> dict[str, int]:
    """How many rows each group's loss rests on in such a record."""
    return {group: int(logs[f"eval_{group}_rows"]) for group in validation_losses(logs) if f"eval_{group}_rows" in logs}


def log_line(step: int, logs: dict[str, float]) -> str:
    """What the terminal shows of one log record; empty for records that are only kept."""
    if losses := validation_losses(logs):
        rows = validation_rows(logs)
        shown = [f"{group} {loss:.4f} ({counted(rows[group], 'row')})" for group, loss in losses.items()]
        return f"step {step:>5}  validation loss: {', '.join(shown)}"
    if "loss" not in logs:
        return ""
    parts = [f"{name} {logs[key]:.4g}" for key, name in LOGGED.items() if key in logs]
    memory = logs["memory_peak_bytes"] / GB
    return f"step {step:>5}  {'  '.join(parts)}  peak memory {memory:.2f} GB"


def warn_of_loss(log: Path) -> None:
    """Print a warning where the loss at the end of a run's log is not below the one at its beginning (a tenth each)."""
    records = read_lines(log)
    losses = [record["loss"] for record in records if "loss" in record]
    if len(losses) < 2:
        return
    tenth = -(-len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    if not last < first:
        found = f"the loss did not fall ({first:.3f} at first, {last:.3f} at last)"
        warn([f"{found}: the model may have learned nothing; look at loss.png, and at training.learning_rate"])
