"""The placebo's rows are answered, and what is known of them is kept; a finished row is not answered again."""

import argparse
import json
from pathlib import Path

from sft.page.blocks import Block, Heading
from sft.system.errors import UserError
from sft.system.files import write_whole
from sft.system.progress import Progress
from studies.context_qa.placebo.scores import RowScores, analyse_placebo, placebo_blocks, read_placebo


def run(arguments: argparse.Namespace) -> list[Block]:
    """The tables of the first `arguments.rows` rows, after answering those that were not.

    Raises UserError when there are fewer rows, or the file at `output` is of another experiment.
    """
    from studies.context_qa.placebo.answers import Experiment

    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(arguments.model, arguments.overrides, arguments.data)
    if arguments.rows > len(experiment.rows):
        raise UserError(f"--rows: {arguments.data} has {len(experiment.rows)} rows with a context and an answer")
    header = json.dumps(experiment.described, ensure_ascii=False)
    progress = Progress(arguments.output, 0)
    progress.begin(header)
    found = _kept(arguments.output, header) | {at: RowScores(**one) for at, (one,) in progress.all_results().items()}
    for place, scores in experiment.answered(at for at in range(arguments.rows) if at not in found):
        found[place] = scores
        progress.add(place, [scores.model_dump()])
    lines = (scores.model_dump_json() for _, scores in sorted(found.items()))
    write_whole(arguments.output, (f"{line}\n" for line in (header, *lines)))
    progress.remove()
    rows = [found[place] for place in range(arguments.rows)]
    title = f"{experiment.described['model']}: gold contained in the answers to {len(rows)} rows"
    return [Heading(2, title), *placebo_blocks(analyse_placebo(rows))]


def _kept(path: Path, header: str) -> dict[int, RowScores]:
    """The scores in a finished file, by the row's place."""
    if not path.is_file():
        return {}
    kept, rows = read_placebo(path)
    if kept != header:
        raise UserError(f"{path}: holds the scores of another model, template, data set or version; choose another")
    return dict(enumerate(rows))
