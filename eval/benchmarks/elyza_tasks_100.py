"""ELYZA-tasks-100: a hundred long instructions, whose answers a person or a judge has to read."""

from collections.abc import Mapping
from typing import Any

from eval.benchmarks.form import Benchmark, Item, field, name_of


def item(row: Mapping[str, Any]) -> Item:
    """A task; the reference is its authors' own example of a good answer."""
    return Item(field(row, "input", "instruction"), "", field(row, "output"), (), name_of(row, "id", "index"))


ELYZA_TASKS_100 = Benchmark(
    name="elyza-tasks-100",
    title="ELYZA-tasks-100",
    hub="elyza/ELYZA-tasks-100",
    split="test",
    item=item,
    form="input, output and eval_aspect",
    settings=("generation.temperature=0", "generation.repetition_penalty=1.0", "generation.max_new_tokens=512"),
    metrics={"length_ratio": "", "eos_rate": "", "ran_on": "", "rep_4": "", "distinct_2": ""},
    scored=False,
)
