"""Earlier turns and system messages that a prompt template does not take are counted and said."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow.compute
from datasets import Dataset

from sft.prompt.template import CHAT_TEMPLATES, PromptTemplate, history_of
from sft.system.visible import counted

BATCH = 1000


def histories(rows: Dataset) -> Iterator[Sequence[tuple[str, str]]]:
    """The history of each row; they are not read where no row has one."""
    turns = pyarrow.compute.sum(pyarrow.compute.list_value_length(rows.data.column("history"))).as_py()
    if not turns:
        yield from [()] * len(rows)
        return
    for batch in rows.select_columns("history").iter(BATCH):
        yield from (history_of({"history": history}) for history in batch["history"])


def lost_turns(template: PromptTemplate, rows: Iterable[Sequence[tuple[str, str]]]) -> list[str]:
    """A warning where rows, given by their histories, hold what `template` leaves out, with the number of rows."""
    total = turns = system = 0
    for history in rows:
        total += 1
        lost = {role for role, _ in history} - {role for role, _ in template.taken(history)}
        turns += not lost.isdisjoint(("user", "assistant"))
        system += "system" in lost
    if not turns and not system:
        return []
    if template.name in CHAT_TEMPLATES:
        remedy = "their last question and answer are used; this model's chat template takes no more"
    else:
        way = "chat-context-first" if template.name.endswith("-context-first") else "chat"
        remedy = f"set prompt.template: {way}, if the model has a chat template"
    taken = "single questions" if turns else "no system message"
    what = [(turns, "earlier turns"), (system, "system message")]
    lose = " and ".join(f"{n:,} {'its' if n == 1 else 'their'} {lost}" for n, lost in what if n)
    verb = "loses" if (turns or system) == 1 else "lose"
    lose = lose.replace(" ", f" {verb} ", 1)
    return [f"prompt.template {template.name} takes {taken}: of {counted(total, 'row')} {lose}; {remedy}"]
