"""SIGTERM and Ctrl-C in a training: noted, so that the step at work is dropped and the last whole one saved."""

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch


class Stopped(Exception):
    """The training was told to stop, by the signal `number`, and has saved its last whole step."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """While in use as a context, `received` is the number of the first SIGTERM or SIGINT; 0: none yet.

    A second Ctrl-C ends the process at once, as it always does. A second SIGTERM does not: launchers send one to
    processes that have met the terminal's Ctrl-C already. Only the main thread can watch.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a worker that loads data; its end is not for it to tell
            os._exit(128 + number)
        if self.received:
            if self.received == number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = number
        name = signal.Signals(number).name
        print(f"\n{name}: the training stops, and its last whole step is saved", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ends_by_signal() -> Iterator[None]:
    """End the process by the signal that stopped the training in the block."""
    try:
        yield
    except Stopped as stopped:
        end_by_signal(stopped.number)


def end_by_signal(number: int) -> None:
    """End this process as the signal would have, so that who waits for it sees the usual status."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class RandomState(NamedTuple):
    """Every generator that training draws from, at one moment."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def now(cls) -> "RandomState":
        """The present state."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Go back to it."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)
