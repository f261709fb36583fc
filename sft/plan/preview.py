"""What is shown before a training run: rows and truncations by category, steps, the first example coloured."""

from collections import Counter
from itertools import groupby

from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from sft.data.read import LoadedData
from sft.data.records import GROUPS, category_label, report_order
from sft.data.rows import category_counts, kind_counts
from sft.data.split import Split
from sft.prompt.encoded_rows import IGNORE_INDEX, token_counts
from sft.prompt.row_encoder import FATES, EncodedRows, Fate
from sft.system.texts import Count, text
from sft.system.visible import visible


def rows_by_category(data: LoadedData, split: Split, fates: Counter[tuple[str, Fate]]) -> dict[str, list[int]]:
    """Of each category, in report order: usable rows, those of each side, and training rows by what the length limit
    did to them: their context shortened, cut off, lost."""
    sides = [category_counts(rows) for rows in (data.rows, *split)]
    return {
        name: [side[name] for side in sides] + [fates[name, fate] for fate in FATES[1:]]
        for name in report_order(kind_counts(data.rows))
    }


def rows_table(data: LoadedData, split: Split, fates: Counter[tuple[str, Fate]]) -> Table:
    """A row a category: usable rows, their sides, and what the length limit did to the training rows.

    A training row that an epoch shows several times counts as often.
    """
    sides = (text("rows.train"), text("rows.validation"), text("rows.test"))
    headings = (text("doctor.usable_rows"), *sides, text("doctor.shorter"), text("doctor.cut"), text("doctor.lost"))
    first = Column(text("rows.category"), no_wrap=True)
    columns = [first, *(Column(name, justify="right", no_wrap=True) for name in headings)]
    table = Table(*columns, title=text("doctor.table"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    counts = rows_by_category(data, split, fates)
    for name, row in counts.items():
        if len(counts) > 1:  # the line below says the same of a single one
            label = Text(visible(category_label(name)))
            table.add_row(label, *map(str, row), end_section=name == [*counts][-1])
    table.add_row(text("rows.all"), *map(str, map(sum, zip(*counts.values(), strict=True))))
    return table


def balance_line(train: Dataset, natural: Dataset) -> str:
    """What `data.balance` made of an epoch: its rows by group, those that come again counted again, and before."""
    counts = [kind_counts(rows) for rows in (train, natural)]
    after, before = ([sum(n for kind, n in found.items() if kind.group == g) for g in GROUPS] for found in counts)
    balanced = ", ".join(f"{group} {count}" for group, count in zip(GROUPS, after, strict=True))
    return text("doctor.balanced", balanced=balanced, natural=", ".join(map(str, before)))


def example_preview(row: dict, tokenizer: PreTrainedTokenizerBase) -> Text:
    """One encoded row as text: supervised tokens green, the others dim, the end-of-text token reversed."""
    preview = Text()
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    for (supervised, is_end), run in groupby(
        pairs, key=lambda pair: (pair[1] != IGNORE_INDEX, pair[0] == tokenizer.eos_token_id)
    ):
        text = tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
        style = ("bold reverse green" if is_end else "green") if supervised else "dim"
        preview.append(visible(text), style=style)
    return preview


def show(console: Console, data: LoadedData, split: Split, train: EncodedRows, summary: str) -> None:
    """Print all of it."""
    for line in data.drop_report():
        console.print(line, style="yellow", markup=False, highlight=False)
    console.print(rows_table(data, split, train.fates))
    tokens, supervised = token_counts(train.rows)
    counts = {"rows": Count(len(train.rows)), "tokens": Count(tokens), "supervised": Count(supervised)}
    console.print(text("doctor.tokens", **counts), highlight=False)
    console.print(summary, markup=False, highlight=False)


def show_example(console: Console, train: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the first training example with a legend."""
    console.rule(text("doctor.first_example"))
    console.print(example_preview(train[0], tokenizer))
    learned, seen = text("doctor.supervised"), text("doctor.not_supervised")
    legend = Text.assemble((learned, "green"), "  ", (seen, "dim"), "  ")
    legend.append(visible(tokenizer.eos_token), "bold reverse green")
    console.print(legend.append(" " + text("doctor.end_by_id")))
    console.rule()
