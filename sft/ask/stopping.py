"""Ctrl-C while an answer comes stops the answer, and nothing else."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Hand out a function that says whether Ctrl-C was pressed in the block.

    It interrupts nothing: weights may just be exchanged for the base's.
    """
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
