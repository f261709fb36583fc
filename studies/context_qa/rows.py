"""The rows that a study asks: held out by every training, and the examples that are shown with them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from eval.answering.shots import draw_shots
from sft.checks.checks import refuse
from sft.checks.data_checks import drops
from sft.config.load import load_config
from sft.config.sections import Config
from sft.data.files.sources import Source
from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example, category_order
from sft.data.rows import category_counts, examples_of, select
from sft.data.split import category_head, hash_order, split_rows
from sft.run.held_out import read_side, training_data
from sft.system.errors import UserError
from studies.context_qa.plan import RowSet, RowsName, Study


class Asked(NamedTuple):
    """A set of rows; `shots` holds the examples in front of each, and is empty where none are shown."""

    examples: list[Example]
    shots: list[list[Example]]


def asked_rows(study: Study) -> dict[RowsName, Asked]:
    """The study's rows. They follow from its file and data alone, so no training has to be there.

    Raises UserError for a file that is missing or of no use, and for a category that no row has.
    """
    config, found = load_config(study.config, study.common), {}
    for name, wanted in study.rows.items():
        try:
            held_out, others = _sides(config, wanted)
        except UserError as error:
            raise UserError(f"rows.{name}.path: {error}" if wanted.path else str(error)) from None
        _check_categories(name, wanted, held_out)
        rows = [row for row in examples_of(category_head(held_out, wanted.rows)) if row.category in wanted.categories]
        if wanted.path:  # all of its rows are held out; what is not asked may be shown
            asked = {row.index for row in rows}
            others = select(others, np.array([index not in asked for index in others["index"]]))
        try:
            found[name] = Asked(rows, draw_shots(rows, others, wanted.shots, config.eval.seed))
        except UserError as error:
            raise UserError(f"rows.{name}.shots: {error}") from None
    return found


def _sides(config: Config, wanted: RowSet) -> tuple[Dataset, Dataset]:
    """The rows to choose from, and those that may be shown as examples."""
    section = config.data
    if wanted.path:
        data = load_data([Source(wanted.path, columns=section.columns_of(wanted.path))], groups=section.groups)
        refuse([drops(data, section.allow_dropped, "answer the rest")])
        return hash_order(data.rows), hash_order(data.rows)
    data = load_data(section.sources, section.leave_out, section.groups)
    split = split_rows(data.rows, *section.shares, [file.side for file in data.files])
    return split.test, split.train


def _check_categories(name: RowsName, wanted: RowSet, rows: Dataset) -> None:
    known = category_order(category_counts(rows))
    unknown = [one for one in wanted.categories if one not in known and one not in CATEGORIES]
    if unknown:
        raise UserError(f"rows.{name}.categories: {unknown[0]} is no category of its rows; known: {', '.join(known)}")
    if not set(known) & set(wanted.categories):
        where = wanted.path or "the test rows"
        raise UserError(f"rows.{name}: {where} has no row of {', '.join(wanted.categories)}")


def check_held_out(study: Study, arm: str, seed: int, rows: Sequence[Example]) -> None:
    """Raise UserError when a run was trained on one of these rows, or on other data than the study has."""
    run = study.run(arm, seed)
    data = training_data(run, load_config(study.config, study.training(arm, seed)))
    trained = set(read_side(run, "train", data)["index"])
    both = next((row.index for row in rows if row.index in trained), None)
    if both is not None:
        raise UserError(f"{run}: was trained on row {both}, which it would be asked; train it again")
