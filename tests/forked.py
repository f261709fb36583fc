"""Programs that train in a process of their own, forked from one that imported everything before, and start fast."""

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""How long a program is waited for."""
CONTEXT = multiprocessing.get_context("forkserver")  # it computes nothing, so that no thread is missing in a fork
CONTEXT.set_forkserver_preload(["sft.training.train"])


class Started:
    """A program that runs, its output kept."""

    def __init__(self, *given: object) -> None:
        descriptor, name = tempfile.mkstemp(prefix="output-")
        os.close(descriptor)
        self._output = Path(name)
        self._process = CONTEXT.Process(target=_run, args=(self._output, *given), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for the end, and return the exit status; where it does not come, an AssertionError has the output."""
        self._process.join(SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"not within {SECONDS} s:\n{self.output()}")
        return self._process.exitcode

    def output(self) -> str:
        """What it has printed, both outputs together."""
        return self._output.read_text(encoding="utf-8", errors="replace")


def started(module: str, *words: object, first: Callable[[], object] = int) -> Started:
    """`main()` of an entry point with these words; what `first`, which is pickled, changes is changed there alone."""
    return Started(module, [*map(str, words)], first)


def _run(output: Path, module: str, words: list[str], first: Callable[[], object]) -> None:
    """What the new process does; it ends with the exit status that an interpreter would have."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    sys.argv = [module, *words]
    first()
    try:
        importlib.import_module(module).main()
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


class killed_after_step:  # noqa: N801  # called as a function is; functions within functions are not pickled
    """Makes a training end, as under kill -9, when this step was logged; for `started`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> None:
        """Change what the training calls after each step."""
        from sft.training.log import RunLog

        logs, number = RunLog.on_log, self.number

        def on_log(self, args, state, *rest, **named):
            logs(self, args, state, *rest, **named)
            if state.global_step == number:
                os._exit(9)

        RunLog.on_log = on_log
