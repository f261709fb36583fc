"""The command lines of `python -m eval`, one function each; what does the work is imported when it is asked for."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.answering.settings import finished_config, read_grid
from eval.benchmarks.known import BENCHMARKS
from eval.endpoint.settings import CHAT, PROMPTS, Server, server_of
from sft.config.hints import as_setting
from sft.config.library.packages import check_extra
from sft.system.command_line import CommandParser, command_parser
from sft.system.errors import UserError
from sft.system.texts import speak
from sft.system.yaml_text import dump_yaml


def evaluate_run(words: Sequence[str], description: str) -> None:
    """`python -m eval RUN`: answer, then score."""
    parser = command_parser(description, "python -m eval", as_setting)
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
    if data and not os.path.isfile(os.path.expanduser(data)):
        raise UserError(f"--benchmark-data {data}: no such file")
    if clash := next((word for word in words if word.startswith(("eval.data=", "eval.columns="))), None):
        raise UserError(f"{clash}: --benchmark {name} has rows of its own; a file of them is --benchmark-data FILE")
    benchmark = BENCHMARKS[name]
    return [*benchmark.settings, f"eval.data={dump_yaml(data or benchmark.hub)}", *words]


def add_place(parser: CommandParser, default: str) -> None:
    """The options that say where answers go, and whether they replace others."""
    parser.add_argument("--output", type=Path, help=f"directory for answers and results; {default} if left out")
    parser.add_argument("--force", action="store_true", help="replace answers to other rows or under other settings")


def spoken(parser: CommandParser, words: Sequence[str]) -> Namespace:
    """What the words say; all that is shown from now on is in the language that they ask for."""
    parser.add_argument("--lang", choices=("ja", "en"), help="the report's language; the locale's if left out")
    arguments = parser.read(words)
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
    parser.add_argument(
        "runs", nargs="+", metavar="RUN|FILE[:SYSTEM]", help="whose answers; tuned, or the only one's, without :SYSTEM"
    )
    parser.add_argument("--output", type=Path, help="directory for the comparison; runs/A/eval/compare-B if left out")
    arguments = spoken(parser, words)
    from eval.compare import compare_runs

    compare_runs(arguments.runs, arguments.output)


def sweep_run(words: Sequence[str]) -> None:
    """`python -m eval sweep RUN [generation.key=[a,b] …]`: answer under each setting and report; DIRECTORY: report."""
    parser = command_parser(
        "Answer rows under several generation settings; report them.", "python -m eval sweep", as_setting
    )
    parser.add_argument("run", type=Path, help="a finished run, or a directory with sweep.json to report it again")
    parser.add_argument(
        "grid", nargs="*", default=[], metavar="section.key=value", help="generation.key=[a,b] is an axis"
    )
    add_place(parser, "the run's eval/sweep")
    arguments = spoken(parser, words)
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
    arguments = parser.read(words)
    if arguments.feedback:
        from eval.ratings import count_ratings

        count_ratings(arguments.feedback)
        return
    from eval.rate import collect, write_sheet

    if arguments.collect:
        collect(arguments.collect, arguments.key)
    else:
        write_sheet(arguments.runs, arguments.output, arguments.seed, arguments.reference)


def add_server(parser: CommandParser) -> None:
    """The options that say which server is asked, and how."""
    parser.add_argument("--endpoint", required=True, metavar="URL", help="such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, metavar="NAME", help="the model's name on that server")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at once; 8 if left out")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for a reply; 600 if left out")
    parser.add_argument("--dry-run", action="store_true", help="say how many calls it takes, and make none")


def take_server(arguments: dict[str, Any]) -> Server:
    """The server that they say; they are taken out. Raises UserError where it cannot be asked."""
    check_extra("judge", "asking a server")
    return server_of(*map(arguments.pop, ("endpoint", "model", "concurrency", "timeout")))


def answer_rows(words: Sequence[str]) -> None:
    """`python -m eval answer FILE`: rows are answered by whatever a server serves."""
    parser = command_parser("Answer rows through a server that speaks OpenAI's API.", "python -m eval answer")
    parser.add_argument("file", metavar="FILE", help="rows, as in data.path, or a predictions.jsonl to add answers to")
    parser.add_argument(
        "words", nargs="*", metavar="section.key=value", help="request.KEY: sent as it is; data.KEY: how FILE is read"
    )
    add_server(parser)
    parser.add_argument(
        "--prompt", default=CHAT, choices=PROMPTS, help="ask as a user's message, or with a template's prompt"
    )
    parser.add_argument("--system", metavar="NAME", help="whom the answers are of; the model if left out")
    parser.add_argument("--output", type=Path, help="directory for the answers; runs/FILE-MODEL/eval if left out")
    parser.add_argument("--force", action="store_true", help="replace answers to other rows or under other settings")
    arguments = vars(parser.read(words))
    server = take_server(arguments)
    from eval.endpoint.answer import answer_file

    answer_file(server=server, **arguments)


def judge_answers(words: Sequence[str]) -> None:
    """`python -m eval judge RUN`: a model judges answers, one by one and against each other."""
    parser = command_parser("Let a model judge answers: 1 to 5, and which of two is better.", "python -m eval judge")
    parser.add_argument(
        "specs", nargs="+", metavar="RUN|FILE[:SYSTEM]", help="one, its base against tuned, or two; request.KEY=VALUE"
    )
    add_server(parser)
    parser.add_argument("--output", type=Path, help="directory for the verdicts; runs/A/eval/judge-MODEL if left out")
    parser.add_argument("--rows", type=int, metavar="N", help="judge so many rows, drawn by --seed; all if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the rows that are drawn")
    parser.add_argument("--sheet", type=Path, help="a filled-in sheet of `eval rate`: how far people and judge agree")
    parser.add_argument("--key", type=Path, help="the sheet's key, where it is not beside it")
    arguments = vars(spoken(parser, words))
    server = take_server(arguments)
    given = arguments.pop("specs")
    sent = [word for word in given if word.startswith("request.") and "=" in word]
    from eval.judge.judge import judge

    judge([word for word in given if word not in sent], server, words=sent, **arguments)
