"""Programs in a forked process: one that can be killed, and need not import everything anew."""

import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""How long a program is waited for."""


class Forked:
    """A program that runs in a fork of this process, its output kept; started when this is made."""

    def __init__(self, program: Callable[[], None]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this is
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._child(program))

    def _child(self, program: Callable[[], None]) -> int:
        """What the new process does; returns the exit status that an interpreter would have."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for descriptor in (1, 2):
            os.dup2(self._output.fileno(), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # it lasts as long as the process
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        status = 0
        try:
            program()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        return status

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.wait(0) if self._ended() else None

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for the end, and return the exit status; where it does not come, an AssertionError has the output."""
        end = time.monotonic() + seconds
        while not self._ended():
            if time.monotonic() > end:
                self.kill()
                self.wait(SECONDS)
                raise AssertionError(f"not within {seconds} s:\n{self.output()}")
            time.sleep(0.01)
        return self._status

    def _ended(self) -> bool:
        if not hasattr(self, "_status"):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return hasattr(self, "_status")

    def send_signal(self, number: int) -> None:
        """Send a signal to the process that runs."""
        if not self._ended():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self.send_signal(signal.SIGKILL)

    def output(self) -> str:
        """What it has printed, both outputs together."""
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace")


def started(module: str, *words: object, cwd: Path = ROOT, first: Callable[[], object] = lambda: None) -> Forked:
    """`main()` of an entry point with these words; what `first` changes is changed in the new process alone."""

    def program() -> None:
        os.chdir(cwd)
        sys.argv = [module, *map(str, words)]
        first()
        importlib.import_module(module).main()

    return Forked(program)
