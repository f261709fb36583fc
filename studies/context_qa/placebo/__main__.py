"""Which tokens does a repetition penalty have to reach to spoil an answer? One penalty, on several sets of tokens.

    python -m studies.context_qa.placebo configs/gemma3-270m.yaml --rows 200 --output gemma.jsonl [section.key=value …]

MODEL is a configuration, whose base model answers untuned, or the directory of a finished run. Another row's context is
the placebo: as many tokens in the mean, and few of the answer's. A finished row is kept, so the same command goes on
where it was stopped, and another --rows goes on from what is there. The file holds ids and scores, and no text of the
data.
"""

import argparse
from pathlib import Path

from eval.render.markdown import render_markdown
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from studies.context_qa.placebo.run import run


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


if __name__ == "__main__":
    main()
