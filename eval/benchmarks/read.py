"""A benchmark's rows, from the hub or a file of the same form."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eval.benchmarks.form import Benchmark, Item
from sft.checks.checks import refuse
from sft.checks.data_checks import drops
from sft.data.drops import Drops
from sft.data.fields.cells import check_text
from sft.data.files.raw import BadRow, Table
from sft.data.files.sources import Source, files_of, is_local
from sft.data.files.tables import hub_table, tables_of
from sft.data.read import LoadedData
from sft.data.records import Example
from sft.data.rows import examples_of, write_rows
from sft.data.split import category_head, hash_order
from sft.system.errors import UserError, say
from sft.system.visible import counted


class Asked(NamedTuple):
    """Rows to answer and, in their order, the choices of each; no choices where the model writes the answers."""

    rows: list[Example]
    choices: list[tuple[str, ...]]


def read_benchmark(benchmark: Benchmark, data: str, limit: int | None, allowed: float) -> Asked:
    """The rows of a benchmark in `data`, a file or a hub data set, at most `limit` of them (None: all), in hash order.

    Raises UserError when it cannot be read, has no row of the benchmark's form, or a larger share of them than
    `allowed` cannot be used.
    """
    unusable = Drops()
    choices: dict[str, tuple[str, ...]] = {}

    def items() -> Iterator[dict[str, Any]]:
        for table in _tables(benchmark, data):
            for place, row in table.rows(None):
                try:
                    item = _item(benchmark, row)
                except BadRow as reason:
                    unusable.add(place, str(reason), "")
                    continue
                choices[item.instruction] = item.choices
                yield dataclasses.asdict(item) | {"category": "", "place": place}

    loaded = LoadedData(write_rows(items()), unusable.first, unusable.counts)
    for line in loaded.drop_report():
        say(line, sys.stderr)
    if not len(loaded.rows):
        raise UserError(f"{data}: no row of {benchmark.title}'s form; a row has {benchmark.form}")
    refuse([drops(loaded, allowed, "answer the rest")])
    say(f"{data}: {counted(len(loaded.rows), 'row')} of {benchmark.title}", sys.stderr)
    rows = [*examples_of(category_head(hash_order(loaded.rows), limit))]
    return Asked(rows, [choices[row.instruction] for row in rows] if any(choices.values()) else [])


def _tables(benchmark: Benchmark, data: str) -> list[Table]:
    if not is_local(data):
        instead = "give a file of the same form with --benchmark-data FILE"
        own = benchmark.hub == data
        return [hub_table(data, None, benchmark.subset if own else None, benchmark.split, instead)]
    return [table for source in files_of([Source(data)]) for table in tables_of(source)]


def _item(benchmark: Benchmark, row: Any) -> Item:
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow("not an object with fields")
    item = benchmark.item(row)
    for text in (item.instruction, item.input, item.output, *item.answers, *item.choices):
        check_text(text, "a field")
    return item
