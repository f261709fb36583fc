"""The command lines of `python -m eval`, one function each; what does the work is imported when it is asked for."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from eval.answering.settings import finished_config, read_grid
from eval.benchmarks.known import BENCHMARKS
from sft.system.command_line import command_parser
from sft.system.errors import UserError
from sft.system.texts import speak
from sft.system.yaml_text import dump_yaml


def evaluate_run(words: Sequence[str], description: str) -> None:
    """`python -m eval RUN`: answer, then score."""
    parser = command_parser(description, "python -m eval")
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="changes to the run's settings"
    )
    parser.add_argument("--allow-other-template", action="store_true", help="allow a prompt.template not trained with")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="the run as it was after this step")
    add_place(parser, "the run's eval directory, or checkpoint-STEP in it")
    parser.add_argument("--benchmark", choices=BENCHMARKS, help="answer its rows, and say what the tuning forgot")
    parser.add_argument("--benchmark-data", metavar="FILE", help="its rows in a file; those on the hub if left out")
    arguments = spoken(parser, words)
    arguments.overrides = benchmark_words(
        arguments.benchmark, arguments.__dict__.pop("benchmark_data"), arguments.overrides
    )
    config = finished_config(arguments.run, arguments.overrides)
    from eval.evaluate import evaluate

    evaluate(config=config, **vars(arguments))


def benchmark_words(name: str | None, data: str | None, words: Sequence[str]) -> list[str]:
    """A benchmark's settings and the words that somebody adds to them. Raises UserError where they clash."""
    if name is None:
        if data:
            raise UserError("--benchmark-data: of which benchmark? Name it with --benchmark; eval.data takes any rows")
        return [*words]
    if data and not Path(data).expanduser().is_file():
        raise UserError(f"--benchmark-data {data}: no such file")
    if clash := next((word for word in words if word.startswith(("eval.data=", "eval.columns="))), None):
        raise UserError(f"{clash}: --benchmark {name} has rows of its own; a file of them is --benchmark-data FILE")
    benchmark = BENCHMARKS[name]
    return [*benchmark.settings, f"eval.data={dump_yaml(data or benchmark.hub)}", *words]


def add_place(parser: ArgumentParser, default: str) -> None:
    """The options that say where answers go, and whether they replace others."""
    parser.add_argument("--output", type=Path, help=f"directory for answers and results; {default} if left out")
    parser.add_argument("--force", action="store_true", help="replace answers to other rows or under other settings")


def spoken(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """What the words say; all that is shown from now on is in the language that they ask for."""
    parser.add_argument("--lang", choices=("ja", "en"), help="the report's language; the locale's if left out")
    arguments = parser.parse_intermixed_args(words)
    speak(arguments.__dict__.pop("lang"))
    return arguments


def score_file(words: Sequence[str]) -> None:
    """`python -m eval score FILE`: score predictions that are already there, into the directory they are in."""
    parser = command_parser("Score a predictions.jsonl file.", "python -m eval score")
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--output", type=Path, help="directory for the results; the file's own if left out")
    parser.add_argument("--training-data", metavar="FILE", help="rows that were trained, to look for their passages")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="data.key=value", help="how the training data are read"
    )
    arguments = spoken(parser, words)
    from eval.score import score_file

    score_file(**vars(arguments))


def compare_runs(words: Sequence[str]) -> None:
    """`python -m eval compare A B …`: paired differences of each system against the first."""
    parser = command_parser("Compare systems over the same rows, each with the first.", "python -m eval compare")
    parser.add_argument("runs", nargs="+", metavar="RUN|FILE[:SYSTEM]", help="whose answers; tuned without :SYSTEM")
    parser.add_argument("--output", type=Path, help="directory for the comparison; runs/A/eval/compare-B if left out")
    arguments = spoken(parser, words)
    from eval.compare import compare_runs

    compare_runs(arguments.runs, arguments.output)


def sweep_run(words: Sequence[str]) -> None:
    """`python -m eval sweep RUN [generation.key=[a,b] …]`: answer under each setting and report; DIRECTORY: report."""
    parser = command_parser("Answer rows under several generation settings; report them.", "python -m eval sweep")
    parser.add_argument("run", type=Path, help="a finished run, or a directory with sweep.json to report it again")
    parser.add_argument(
        "grid", nargs="*", default=[], metavar="section.key=value", help="generation.key=[a,b] is an axis"
    )
    add_place(parser, "the run's eval/sweep")
    arguments = parser.parse_intermixed_args(words)
    directory = arguments.run
    if arguments.grid or not (directory / "sweep.json").is_file():
        arguments.grid = read_grid(directory, arguments.grid)
        from eval.answering.sweep import answer_grid

        directory = answer_grid(**vars(arguments))
    from eval.sweep import report_sweep

    report_sweep(directory)


def rate_runs(words: Sequence[str]) -> None:
    """`python -m eval rate A B`: write a blind sheet; `--collect SHEET`: read it back."""
    parser = command_parser("Write a blind A/B sheet (csv) for people, or read one back.", "python -m eval rate")
    parser.add_argument("runs", nargs="*", metavar="RUN|FILE[:SYSTEM]", help="the two to compare")
    parser.add_argument("--output", type=Path, help="directory for sheet and key; runs/A/eval/rate-B if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the sides")
    parser.add_argument("--reference", action="store_true", help="show raters the reference, too")
    parser.add_argument("--collect", type=Path, metavar="SHEET", help="read the preferences of a filled-in sheet")
    parser.add_argument("--key", type=Path, help="the sheet's key, where it is not beside it")
    parser.add_argument("--feedback", type=Path, metavar="RUN", help="count what people said on the run's page")
    arguments = parser.parse_args(words)
    if arguments.feedback:
        from eval.ratings import count_ratings

        count_ratings(arguments.feedback)
        return
    from eval.rate import collect, write_sheet

    if arguments.collect:
        collect(arguments.collect, arguments.key)
    else:
        write_sheet(arguments.runs, arguments.output, arguments.seed, arguments.reference)
