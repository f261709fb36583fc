"""The page of `python -m sft.data`: what was read, what cannot be used, what is worth a look, and three rows."""

from collections.abc import Iterable, Iterator

import numpy as np
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sft.data.fields.cells import REPAIRED
from sft.data.fields.defects import DEFECTS
from sft.data.read import LoadedData
from sft.data.records import GROUPS, Example, Group, category_order
from sft.data.rows import category_counts, examples_of, kind_counts, select
from sft.data.split import HELD_ELSEWHERE, Split
from sft.data.survey import Survey
from sft.prompt.template import ALPACA_JA
from sft.system.texts import Count, listed, text, told
from sft.system.visible import visible

SHOWN_ROWS = 3
SHOWN_CHARACTERS = 600
"""Of a prompt and of an answer."""
NAME_WIDTH = 30
"""Terminal columns of a category's name."""


def show(console: Console, data: LoadedData, split: Split, look: Survey, allowed: float) -> None:
    """Print the page. `split` is the rows' sides, `allowed` the share of unusable rows that training takes."""
    for line in read_lines(data):
        console.print(_text(line), soft_wrap=True)
    _section(console, text("rows.by_category"), category_table(data.rows, split))
    _section(console, text("rows.lengths"), length_table(data.rows, look))
    show_drops(console, data, allowed)
    if findings := list(suspicions(data, look)):
        _section(console, text("rows.worth_a_look"), findings_table(findings))
    else:
        _section(console, text("rows.nothing_found"))
    _section(console, text("rows.prompted"))
    for example in prompted_rows(data.rows):
        show_prompted(console, example)


def read_lines(data: LoadedData) -> Iterator[str]:
    """As what each table was read."""
    for file in data.files:
        for schema, form, rows in file.tables:
            values = {"path": file.path, "rows": Count(rows), "schema": told(schema), "form": told(form)}
            yield text("rows.read_as", **values)


def category_table(rows: Dataset, split: Split) -> Table:
    """Rows by category and group, and on which side they are."""
    counts = [kind_counts(side) for side in (rows, split.train, split.validation, split.test)]
    headings = text("rows.rows"), text("rows.train"), text("rows.validation"), text("rows.test")
    table = _table([_name(text("rows.category")), text("rows.group")], headings)
    order = category_order(category_counts(rows))
    for kind in sorted(counts[0], key=lambda kind: (GROUPS.index(kind.group), order.index(kind.category))):
        table.add_row(_text(_label(kind.category)), group_word(kind.group), *(f"{found[kind]:,}" for found in counts))
    table.add_section()
    table.add_row(text("rows.all"), "", *(f"{found.total():,}" for found in counts))
    return table


def length_table(rows: Dataset, look: Survey) -> Table:
    """Quartiles of the lengths of questions, of the contexts that there are, and of answers."""
    names = {"instruction": text("rows.question"), "input": text("rows.passage"), "output": text("rows.answer")}
    headings = [text("rows.rows"), text("rows.shortest"), text("rows.quarter"), text("rows.median")]
    table = _table([text("rows.field")], [*headings, text("rows.three_quarters"), text("rows.longest")])
    for field, found in look.lengths.items():
        there = found[found > 0]
        quartiles = np.percentile(there, [0, 25, 50, 75, 100], method="lower") if len(there) else []
        table.add_row(names[field], f"{len(there):,}", *(f"{int(length):,}" for length in quartiles))
    return table


def show_drops(console: Console, data: LoadedData, allowed: float) -> None:
    """Print how many rows are left out, and which. Those that somebody asked for do not count as unusable."""
    dropped = data.drop_counts.total()
    total = len(data.rows) + sum(n for (reason, _), n in data.drop_counts.items() if reason != HELD_ELSEWHERE)
    if not dropped:
        _section(console, text("rows.none_dropped", rows=Count(total)))
        return
    share = f"{dropped / total:.1%}"
    title = text("rows.dropped", rows=f"{dropped:,}", total=f"{total:,}", share=share)
    _section(console, title, drop_table(data))
    if data.too_many_unusable(allowed):
        console.print(text("rows.too_many_dropped", share=f"{allowed:.0%}"), style="red", soft_wrap=True)


def drop_table(data: LoadedData) -> Table:
    """Rows that are left out, by reason and category, with the first places."""
    table = _table([text("rows.reason"), _name(text("rows.category"))], [text("rows.rows")], [text("rows.where")])
    for (reason, category), count in data.drop_counts.most_common():
        places = [row.place for row in data.dropped if (row.reason, row.category) == (reason, category)]
        places += ["…"] * (count > len(places) > 0)
        table.add_row(_text(told(reason)), _text(category), f"{count:,}", _text(listed(places)))
    return table


def suspicions(data: LoadedData, look: Survey) -> Iterator[tuple[str, int, str]]:
    """What is worth a look: in words, how many rows or cells, an example or a remedy."""
    for kind, count in data.cells.counts.most_common():
        place, cell = data.cells.examples[kind][0]
        what = text("rows.repaired", kind=told(kind)) if kind in REPAIRED else told(kind)
        yield what, count, f"{told(place)}: {' '.join(cell.split())}"
    if len(look.bare):
        yield text("rows.bare"), len(look.bare), text("rows.fill_in", place=_place(data.rows, look.bare[0]))
    if len(look.again):
        first = " ".join(data.rows[int(look.again[0])]["instruction"].split())
        yield text("rows.same"), len(look.again), f"{_place(data.rows, look.again[0])}: {first[:40]}"
    if look.answered_otherwise:
        yield text("rows.answered_otherwise"), look.answered_otherwise, ""
    if look.conversations:
        yield text("rows.conversations"), look.conversations, text("rows.use_chat")
    if look.several_systems:
        yield text("rows.several_systems"), look.several_systems, text("rows.joined")
    for name, meaning in DEFECTS.items():
        if count := look.defects[name]:
            yield told(meaning), count, text("rows.leave_out", name=name)


def _place(rows: Dataset, place: int) -> str:
    """Where a row stands in its file."""
    return told(rows[int(place)]["place"])


def findings_table(findings: Iterable[tuple[str, int, str]]) -> Table:
    """The suspicions as a table."""
    table = _table([text("rows.kind")], [text("rows.rows")], [text("rows.example")])
    for what, count, example in findings:
        table.add_row(_text(what), f"{count:,}", _text(example))
    return table


def prompted_rows(rows: Dataset) -> list[Example]:
    """The first row of each group, and the first others, in the order of the file."""
    first = list(examples_of(select(rows, slice(1000))))
    groups = {example.group: place for place, example in reversed([*enumerate(first)])}
    places = sorted(groups.values())[:SHOWN_ROWS]
    places += [place for place in range(len(first)) if place not in places][: SHOWN_ROWS - len(places)]
    return [first[place] for place in sorted(places)]


def show_prompted(console: Console, example: Example) -> None:
    """Print a row as alpaca-ja would prompt it, and its answer."""
    category, group = _label(example.category), group_word(example.group)
    title = text("rows.prompted_row", place=told(example.place), category=category, group=group)
    console.print(_text(f"── {title}"), style="dim", soft_wrap=True)
    if example.history:
        turns = Count(len(example.history))
        console.print(text("rows.earlier_turns", turns=turns), style="yellow", soft_wrap=True)
    prompt = _text(_shortened(ALPACA_JA.render(example.instruction, example.input)))
    console.print(prompt.append(visible(_shortened(example.output)), style="green"), soft_wrap=True)
    console.print()


def group_word(group: Group) -> str:
    """A group's name."""
    return {"open": text("rows.open"), "context": text("rows.context"), "other": text("rows.other")}[group]


def _shortened(whole: str) -> str:
    left = len(whole) - SHOWN_CHARACTERS
    return whole[:SHOWN_CHARACTERS] + text("rows.shortened", characters=Count(left)) if left > 0 else whole


def _label(category: str) -> str:
    return visible(category or text("rows.no_category"))


def _text(words: str) -> Text:
    """Anybody's words, which are no markup."""
    return Text(visible(words))


def _name(title: str) -> Column:
    return Column(title, no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)


def _section(console: Console, title: str, table: Table | None = None) -> None:
    console.print()
    console.print(_text(title), style="bold", soft_wrap=True)
    if table:
        console.print(table)


def _table(names: Iterable[str | Column], numbers: Iterable[str], places: Iterable[str] = ()) -> Table:
    """An empty table: columns of words, of numbers, and of words again."""
    words = [name if isinstance(name, Column) else Column(name, overflow="fold") for name in names]
    counts = [Column(name, justify="right", no_wrap=True) for name in numbers]
    columns = [*words, *counts, *(Column(name, overflow="fold") for name in places)]
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
