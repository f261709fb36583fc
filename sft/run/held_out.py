"""Which rows a run trained on and which it held out: split.json, and the rows themselves."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.compute
from datasets import Dataset

from sft.config.sections import Config
from sft.data.read import load_data
from sft.data.rows import BATCH, select
from sft.data.split import Split
from sft.run.manifest import read_manifest
from sft.system.errors import UserError
from sft.system.files import read_bytes, write_whole


def split_text(split: Split) -> Iterator[str]:
    """Which row, by index, is on which side, as the run's `split.json` has it: a JSON object, piece by piece."""
    for number, (name, side) in enumerate(split._asdict().items()):
        yield f'{", " if number else "{"}"{name}": ['
        for place, batch in enumerate(side.select_columns("index").iter(BATCH)):
            yield (", " if place else "") + json.dumps(batch["index"], ensure_ascii=False)[1:-1]
        yield "]"
    yield "}\n"


def write_split(run: Path, split: Split) -> None:
    """Write `split.json`."""
    write_whole(run / "split.json", split_text(split))


def read_side(run: Path, side: str, rows: Dataset) -> Dataset:
    """The rows of one side ("train", "validation" or "test") of a run's split, in its order; `rows` are all there are.

    Raises UserError when the split is not the one that the run was trained with.
    """
    path = run / "split.json"
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != read_manifest(run).identity.split:
        raise UserError(f"{path}: was changed after the training, so no row can be trusted to be held out")
    try:
        indexes = pyarrow.array(json.loads(content)[side], pyarrow.string())
        places = pyarrow.compute.index_in(indexes, value_set=rows.data.column("index"))
        return select(rows, places.to_numpy())  # which raises ValueError where there is no such index
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UserError(f"{path}: is not a split of these rows") from None


def training_data(run: Path, config: Config) -> Dataset:
    """All rows of the run's data. Raises UserError when they are not those it was trained with."""
    data = load_data(config.data.sources, config.data.leave_out, config.data.groups)
    if data.sha256 != read_manifest(run).identity.data:
        raise UserError(
            f"{config.data.named}: its rows are not those that {run} was trained with, so no row can be "
            "trusted to be held out; give the same file with data.path=…"
        )
    return data.rows
