"""What `python -m sft.data` does: read, look, show, and write the cleaned rows if asked to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from sft.config.data.names import check_names
from sft.config.sections import DataSection
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of, kind_counts
from sft.data.split import on_no_side, split_rows
from sft.data.survey import survey
from sft.overview.page import show
from sft.system.files import write_whole
from sft.system.texts import Count, text


def overview(section: DataSection, output: Path | None) -> None:
    """Show what would be read, and write the usable rows to `output`, which must be new (None: nowhere).

    Raises UserError as `load_data` does, and where the rows cannot be written.
    """
    console = Console(highlight=False)
    data = load_data(section.sources, section.leave_out, section.groups)
    check_names(section, kind_counts(data.rows))
    split = split_rows(data.rows, *section.shares, [file.side for file in data.files])
    data.drop_counts.update(on_no_side(data.rows, split))
    if output:  # before the page, whose reader may be `head`
        write_whole(output, json_lines(data.rows), new=True)
    show(console, data, split, survey(data.rows), section.allow_dropped)
    if output:
        console.print(text("rows.written", path=output, rows=Count(len(data.rows))), markup=False)


def json_lines(rows: Dataset) -> Iterator[str]:
    """The rows in dolly-ja's schema, an object a line; `history` and `answers` where they have any."""
    for example in examples_of(rows):
        yield json.dumps(fields(example), ensure_ascii=False) + "\n"


def fields(example: Example) -> dict[str, Any]:
    """A row as `load_data` reads it again."""
    names = ("index", "instruction", "input", "output", "category")
    found: dict[str, Any] = {name: getattr(example, name) for name in names}
    if example.history:
        found["history"] = [{"role": role, "content": content} for role, content in example.history]
    return found | ({"answers": list(example.answers)} if example.answers else {})
