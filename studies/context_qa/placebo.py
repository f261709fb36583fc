"""Which tokens does a repetition penalty have to reach to spoil an answer? One penalty, on several sets of tokens.

    python -m studies.context_qa.placebo configs/gemma3-270m.yaml --rows 200 --output gemma.jsonl [section.key=value …]

MODEL is a configuration, whose base model answers untuned, or the directory of a finished run. Another row's context is
the placebo: as many tokens, but not those of the answer. A finished row is kept, so the same command goes on where it
was stopped, and another --rows goes on from what is there. The file holds ids and scores, and no text of the data.
"""

import argparse
import json
from pathlib import Path

from eval.render.markdown import render_markdown
from sft.page.blocks import Block, Heading
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error
from sft.system.files import write_whole
from sft.system.progress import Progress
from studies.context_qa.placebo_scores import RowScores, analyse_placebo, placebo_blocks, read_placebo


def main() -> None:
    """Answer the rows that are not answered yet and print the tables of all that were asked for."""
    parser = command_parser(__doc__, "python -m studies.context_qa.placebo")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a configuration (*.yaml) or a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the configuration")
    parser.add_argument("--data", default="data/jsquad-valid.jsonl", help="rows with a context and gold answers")
    parser.add_argument("--rows", type=_count, default=200, help="the first so many rows in the order of a hash (200)")
    parser.add_argument("--output", type=Path, required=True, help="the file of row scores")
    arguments = parser.read()
    with exit_on_user_error("interrupted; the same command goes on where it stopped"):
        print(render_markdown(run(arguments)))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def run(arguments: argparse.Namespace) -> list[Block]:
    """The tables of the first `arguments.rows` rows, after answering those that were not.

    Raises UserError when there are fewer rows, or the file at `output` is of another experiment.
    """
    from studies.context_qa.placebo_answers import Experiment

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


if __name__ == "__main__":
    main()
