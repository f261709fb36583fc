"""What ends a training before its last step: signals, which are noted, and numbers that are not finite.

The step at work is dropped, and the last whole one saved.
"""

import contextlib
import errno
import os
import random
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import torch

from sft.system.errors import UserError
from sft.system.visible import visible

SHOWN_ROWS = 10


class Stopped(Exception):
    """The training was told to stop, by the signal `number`, and has saved its last whole step."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class NotFinite(UserError):
    """Loss or gradient of a step is not a finite number; `rows` are the indexes of the rows it may come from.

    `remedy` is what else may help than a lower learning rate (see `wider_format`).
    """

    def __init__(self, what: str, value: float, step: int, rows: Sequence[str], remedy: str | None) -> None:
        self.what, self.value, self.step, self.rows, self.remedy = what, value, step, rows, remedy
        shown = visible(", ".join(row.removeprefix("row ") for row in rows[:SHOWN_ROWS])) + ", …" * (
            len(rows) > SHOWN_ROWS
        )
        kept = f"step {step - 1} is saved, and --resume goes on from there" if step > 1 else "nothing was learned yet"
        super().__init__(
            f"the {what} became {value} at step {step}, in row{'s' * (len(rows) > 1)} {shown}; {kept}. Look at these "
            "rows, try a lower training.learning_rate" + (f", or {remedy}" if remedy else "")
        )

    def naming(self, rows: Sequence[str]) -> "NotFinite":
        """The same, with these names for the rows."""
        return NotFinite(self.what, self.value, self.step, rows, self.remedy)


class Signals:
    """While in use as a context, `received` is the number of the first SIGTERM, SIGINT or SIGHUP; 0: none yet.

    SIGHUP comes when the terminal is gone, as when an ssh connection breaks; under nohup it stays ignored.

    A second Ctrl-C ends the process at once, as it always does. A second SIGTERM does not: launchers send one to
    processes that have met the terminal's Ctrl-C already. Only the main thread can watch.
    """

    received = 0

    def __enter__(self) -> None:
        self._process = os.getpid()
        watched = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            watched.remove(signal.SIGHUP)
        if threading.current_thread() is not threading.main_thread():
            watched = []
        self._streams = sys.stdout, sys.stderr
        if signal.SIGHUP in watched:
            sys.stdout, sys.stderr = map(_outlives_its_terminal, self._streams)
        self._before: dict[int, Any] = {number: signal.signal(number, self._note) for number in watched}

    def __exit__(self, *_: Any) -> None:
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a worker that loads data; its end is not for it to tell
            os._exit(128 + number)
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received:
            return
        self.received = number
        if number == signal.SIGHUP:
            leave_lost_terminals()
        name = signal.Signals(number).name
        print(f"\n{name}: the training stops, and its last whole step is saved", file=sys.stderr, flush=True)


class _Terminal:
    """A stream to a terminal; what is written when that is gone, some moments before SIGHUP comes, is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, does: Callable[[], object]) -> None:
        try:
            does()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            leave_lost_terminals()


def _outlives_its_terminal(stream: Any) -> Any:
    return _Terminal(stream) if stream.isatty() else stream


def leave_lost_terminals() -> None:
    """Let standard output and error go nowhere where they are a terminal that is gone: each write would fail."""
    for handle in (1, 2):
        try:
            termios.tcgetattr(handle)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, handle)
                os.close(nowhere)


@contextlib.contextmanager
def ends_by_signal() -> Iterator[None]:
    """End the process by the signal that stopped the training in the block: who waits for it sees the usual status."""
    try:
        yield
    except Stopped as stopped:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(stopped.number, signal.SIG_DFL)
        os.kill(os.getpid(), stopped.number)


_GENERATORS: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all),  # of no GPU where there is none
)
"""How the state of each generator that training draws from is read, and put back."""


def random_states() -> list[Any]:
    """The present state of every generator that training draws from."""
    return [read() for read, _ in _GENERATORS]


def restore_random(states: list[Any]) -> None:
    """Go back to what `random_states` returned."""
    for (_, put_back), state in zip(_GENERATORS, states, strict=True):
        put_back(state)
