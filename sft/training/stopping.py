"""SIGTERM and Ctrl-C in a training: noted, so that the step at work is dropped and the last whole one saved."""

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

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

    received = 0

    def __enter__(self) -> None:
        self._process = os.getpid()
        watched = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self._before: dict[int, Any] = {number: signal.signal(number, self._note) for number in watched}

    def __exit__(self, *_: Any) -> None:
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
        name = signal.Signals(number).name
        print(f"\n{name}: the training stops, and its last whole step is saved", file=sys.stderr, flush=True)


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
