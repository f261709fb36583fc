"""What a study says while it works. No torch here."""

import time

from sft.system.processes import RANK


class Clock:
    """How long the remaining rows take, from those answered since the start."""

    def __init__(self, rows: int) -> None:
        self.started = time.monotonic()
        self.rows = rows
        self.answered = 0

    def add(self, rows: int) -> str:
        """Count rows as answered; says what is left."""
        self.answered += rows
        each = (time.monotonic() - self.started) / self.answered
        left = self.rows - self.answered
        return f"{self.answered} of {self.rows} rows answered; about {duration(each * left)} left"


def duration(seconds: float) -> str:
    """`1 h 05 min` or `12 min`."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def say(line: str) -> None:
    """Print at once, from one process only."""
    if RANK == 0:
        print(line, flush=True)
