"""Which training rows stand as examples in the prompt of which row (`eval.shots`)."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset

from eval.metrics.text import normalise
from sft.config.sections import Config
from sft.data.records import Example
from sft.data.rows import examples_of, of_group, select
from sft.run.bare_adapter import is_bare_adapter
from sft.run.held_out import read_side, training_data
from sft.system.errors import UserError


def rows_trained(run: Path, config: Config) -> Dataset | None:
    """The rows that a run trained on where examples are drawn from them; None where none are, or nobody knows them."""
    if not config.eval.shots or is_bare_adapter(run):
        return None
    return read_side(run, "train", training_data(run, config))


def draw_shots(rows: Sequence[Example], trained: Dataset | None, count: int, seed: int) -> list[list[Example]]:
    """For each row `count` training rows of its group, drawn by `seed` and the row alone; none for a `count` of 0.

    Never the question asked or one about its context, and no question or context twice. `trained` is None where nobody
    knows what was trained on. Raises UserError where there are not enough.
    """
    if not count:
        return []
    if trained is None:
        raise UserError(
            "eval.shots: an adapter without its run has no training rows to draw examples from; set it to 0"
        )
    of = {group: of_group(trained, group) for group in {row.group for row in rows}}
    drawn = []
    for row in rows:
        shots = _drawn(row, of[row.group], count, random.Random(f"{seed} {row.index}"))
        if len(shots) < count:
            raise UserError(
                f"eval.shots {count}: of the training rows only {len(shots)} of group {row.group} can stand before row "
                f"{row.named}; set it to {len(shots)}"
            )
        drawn.append(shots)
    return drawn


def _drawn(row: Example, candidates: Dataset, count: int, draw: random.Random) -> list[Example]:
    shots: list[Example] = []
    asked, about = {normalise(row.instruction)}, {normalise(row.input)} - {""}
    for place in _places(len(candidates), draw):
        if len(shots) == count:
            break
        (shot,) = examples_of(select(candidates, [place]))
        question, context = normalise(shot.instruction), normalise(shot.input)
        if question in asked or shot.history or any(context in other or other in context for other in about if context):
            continue
        asked.add(question)
        about |= {context} - {""}
        shots.append(shot)
    return shots


def _places(size: int, draw: random.Random) -> Iterator[int]:
    """The numbers below `size` in an order of chance, one by one: few of many are looked at."""
    seen: set[int] = set()
    while len(seen) < size:
        place = draw.randrange(size)
        if place not in seen:
            seen.add(place)
            yield place
