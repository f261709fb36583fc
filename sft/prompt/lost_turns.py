"""Earlier turns and system messages that a prompt template does not take are counted and said."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow.compute
from datasets import Dataset

from sft.prompt.template import PromptTemplate, history_of

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
    found = [f"{turns:,} lose their earlier turns"] * bool(turns) + [f"{system:,} their system message"] * bool(system)
    if not found:
        return []
    if template.name == "chat":
        remedy = "their last question and answer are used; this model's chat template takes no more"
    else:
        remedy = "set prompt.template: chat, if the model has a chat template"
    taken = "single questions" if turns else "no system message"
    lose = " and ".join(found) if turns else f"{system:,} lose their system message"
    return [f"prompt.template {template.name} takes {taken}: of {total:,} rows {lose}; {remedy}"]
