"""The listing of runs as a table."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sft.data.records import GROUPS
from sft.runs.listing import Run, State
from sft.system.texts import text
from sft.system.visible import bytes_shown, visible

STYLES: dict[State, str] = {"running": "cyan", "stopped": "yellow", "finished": "green", "damaged": "red"}


def show(runs: Sequence[Run]) -> None:
    """Print a line a run, and below the table in what each differs and what could not be read."""
    console = Console(highlight=False)
    words = [text("runs.run"), text("runs.state"), text("runs.base"), text("runs.data")]
    columns = [Column(word, overflow="fold") for word in words]
    numbers = [Column(name, justify="right", no_wrap=True) for name in (text("runs.steps"), *GROUPS, text("runs.size"))]
    table = Table(*columns, *numbers, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for run in runs:
        scores = (f"{run.scores[group]:.3f}" if group in run.scores else "–" for group in GROUPS)
        state = Text(state_word(run.state), style=STYLES[run.state])
        table.add_row(_text(run.name), state, _text(run.base), _text(run.data), run.steps, *scores, bytes_shown(run.size))
    console.print(table)
    console.print(text("runs.scores"), style="dim", soft_wrap=True)
    if any(run.changed for run in runs):
        console.print()
        console.print(text("runs.changed"), style="bold")
        for run in runs:
            if run.changed:
                console.print(_text(f"{run.name}: {'  '.join(run.changed)}"), soft_wrap=True)
    for run in runs:
        if run.problem:
            console.print(_text(run.problem), style="red", soft_wrap=True)


def state_word(state: State) -> str:
    """A state in the reader's language."""
    return {
        "running": text("runs.running"),
        "stopped": text("runs.stopped"),
        "finished": text("runs.finished"),
        "damaged": text("runs.damaged"),
    }[state]


def _text(words: str) -> Text:
    return Text(visible(words))
