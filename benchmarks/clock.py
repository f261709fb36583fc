"""What a training's last step takes, by the clock and in memory. Other Pythons use it, which do not know `sft`."""

import re
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Times the last step, from its rows at hand to its weights changed."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


class Memory:
    """Memory from its making on. Linux only."""

    def __init__(self) -> None:
        self._before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted anew from here

    def peak(self) -> int:
        """The most bytes since then, beyond what there was."""
        return _status("VmHWM") - self._before


def measured(clock: Clock, memory: Memory, history: list[dict[str, Any]], tokens: int) -> dict[str, float]:
    """What is told of a variant: seconds, useful tokens, bytes; of the first step loss and gradient norm."""
    log = next(record for record in history if "grad_norm" in record)
    return {
        "wall": clock.wall, "cpu": clock.cpu, "tokens": tokens,
        "memory": memory.peak(), "loss": log["loss"], "gradient_norm": log["grad_norm"],
    }  # fmt: skip


def _status(key: str) -> int:
    told = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert told, "a kernel that does not tell its memory"
    return int(told[1]) * 1024
