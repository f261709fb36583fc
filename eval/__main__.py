"""Answer a run's held-out rows with base and tuned model, score them by task category, and report.

    python -m eval runs/calm7b [section.key=value …]
    python -m eval score predictions.jsonl              score answers again, or anybody's; needs no torch
    python -m eval compare runs/A runs/B […]            paired differences on the same rows
    python -m eval sweep runs/A [generation.key=[a,b] …]  the same rows under several settings, open against context
    python -m eval rate runs/A runs/B                   a blind A/B sheet for people; --collect reads it back

The results are in runs/<name>/eval/: predictions.jsonl, samples.jsonl, results.json, report.md, report.html.
`python -m eval COMMAND --help` explains each.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.predictions import Prediction, read_predictions
from sft.config.load import load_config
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error
from sft.system.files import output_directory, write_whole
from sft.system.processes import RANK

RESAMPLES, SEED = 10_000, 0


def main() -> None:
    """Read the command line and do what it says."""
    commands = {"score": score_file, "compare": compare_runs, "sweep": sweep_run, "rate": rate_runs}
    with exit_on_user_error("interrupted; the same command goes on where it stopped"):
        commands.get("".join(sys.argv[1:2]), evaluate_run)()


def evaluate_run() -> None:
    """`python -m eval RUN`: answer, then score."""
    parser = command_parser(__doc__, "python -m eval")
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the run's settings")
    parser.add_argument("--allow-other-template", action="store_true", help="allow a prompt.template not trained with")
    arguments = parser.parse_intermixed_args()

    from sft.run.directory import require_finished

    require_finished(arguments.run)

    from eval.answering.answer import answer_rows, rows_to_answer
    from sft.data.rows import examples_of
    from sft.generation.answerer import load_answerer
    from sft.run.held_out import read_side, training_data

    config = load_config(arguments.run / "config.yaml", arguments.overrides, to_train=False)
    rows = rows_to_answer(arguments.run, config)
    trained = read_side(arguments.run, "train", training_data(arguments.run, config))
    directory = output_directory(arguments.run / "eval" / (Path(config.eval.data).stem if config.eval.data else ""))
    answerer = load_answerer(arguments.run, arguments.overrides, arguments.allow_other_template)
    predictions = answer_rows(answerer, rows, directory / "predictions.jsonl")
    if RANK == 0:
        outputs = {row.index: row.output for row in examples_of(trained)}
        report(predictions, directory, config.eval.resamples, config.eval.seed, outputs)


def score_file() -> None:
    """`python -m eval score FILE`: score predictions that are already there, into the directory they are in."""
    parser = _parser("score", "Score a predictions.jsonl file.")
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--output", type=Path, help="directory for the results; the file's own if left out")
    parser.add_argument("--training-data", help="what was trained on, in dolly-ja's schema, to look for its passages")
    arguments = parser.parse_args(sys.argv[2:])
    if not arguments.predictions.is_file():
        raise UserError(f"{arguments.predictions}: no such file; `python -m eval RUN` writes one")
    directory = output_directory(arguments.output or arguments.predictions.parent)
    predictions = list(read_predictions(arguments.predictions))
    report(predictions, directory, RESAMPLES, SEED, _training_outputs(arguments.training_data, predictions))


def compare_runs() -> None:
    """`python -m eval compare A B …`: paired differences of each system against the first."""
    from rich.console import Console

    from eval import compare

    parser = _parser("compare", "Compare systems over the same rows, each with the first.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN|FILE[:SYSTEM]", help="whose answers; the system tuned if not said"
    )
    parser.add_argument("--output", type=Path, help="directory for the comparison; runs/A/eval/compare-B if left out")
    arguments = parser.parse_args(sys.argv[2:])
    directory = compare.compare_runs(arguments.runs, arguments.output, RESAMPLES, SEED, Console())
    print(f"{directory / 'comparison.md'}: every metric; comparison.html and comparison.json are beside it")


def sweep_run() -> None:
    """`python -m eval sweep RUN [generation.key=[a,b] …]`: answer under each setting and report; DIRECTORY: report."""
    parser = _parser("sweep", "Answer the same rows under several generation settings; report open against context.")
    parser.add_argument("run", type=Path, help="a finished run, or a directory with sweep.json to report it again")
    parser.add_argument(
        "grid",
        nargs="*",
        metavar="section.key=value",
        help="generation.key=[a,b] is an axis; penalty × scope if none is",
    )
    arguments = parser.parse_intermixed_args(sys.argv[2:])
    directory = arguments.run
    if arguments.grid or not (directory / "sweep.json").is_file():
        from eval.answering.sweep import run_sweep

        directory = run_sweep(arguments.run, arguments.grid)
    from rich.console import Console

    from eval.report.sweep import report_sweep

    print(f"{report_sweep(directory, RESAMPLES, SEED, Console())}: table and figures; sweep.md is beside it")


def rate_runs() -> None:
    """`python -m eval rate A B`: write a blind sheet; `--collect SHEET`: read it back."""
    from rich.console import Console

    from eval import rate

    parser = _parser("rate", "Write a blind A/B sheet (csv) for people, or read a filled-in one back.")
    parser.add_argument("runs", nargs="*", metavar="RUN|FILE[:SYSTEM]", help="the two to compare")
    parser.add_argument("--output", type=Path, help="directory for sheet and key; runs/A/eval/rate-B if left out")
    parser.add_argument("--seed", type=int, default=SEED, help="of the order and the sides")
    parser.add_argument("--reference", action="store_true", help="show raters the reference, too")
    parser.add_argument("--collect", type=Path, metavar="SHEET", help="read the preferences of a filled-in sheet")
    parser.add_argument("--key", type=Path, help="the sheet's key, where it is not beside it")
    arguments = parser.parse_args(sys.argv[2:])
    if arguments.collect:
        print(f"{rate.collect(arguments.collect, arguments.key, Console())}: counts, shares and p values")
        return
    sheet, key = rate.write_sheet(arguments.runs, arguments.output, arguments.seed, arguments.reference)
    print(f"{sheet}: write 1, 2 or tie under preference, then python -m eval rate --collect {sheet}")
    print(f"{key}: tells which side is whose; keep it from the raters")


def report(
    predictions: Sequence[Prediction],
    directory: Path,
    resamples: int,
    seed: int,
    training_outputs: Mapping[str, str] | None = None,
) -> None:
    """Score, write results and report, print the table."""
    from rich.console import Console

    from eval.report.document import html, markdown
    from eval.report.sweep import scored_sweep
    from eval.report.terminal import print_table
    from eval.scoring.score import score, write_results

    results = score(predictions, resamples, seed, training_outputs)
    write_results(results, directory)
    sweep = scored_sweep(directory / "sweep")
    for name, render in (("report.md", markdown), ("report.html", html)):
        write_whole(directory / name, render(results, predictions, sweep))
    print_table(results, Console())
    print(f"{directory / 'report.html'}: the whole report; report.md, results.json and samples.jsonl are beside it")


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return command_parser(description, f"python -m eval {command}")


def _training_outputs(path: str | None, predictions: Sequence[Prediction]) -> dict[str, str] | None:
    """Outputs, by index, of the rows that were not evaluated; None without data.

    A benchmark of other questions may count its rows from 1, too, so a row is known by its question as well.
    """
    if path is None:
        return None
    from sft.data.read import load_data
    from sft.data.rows import examples_of

    evaluated = {(prediction.example.index, prediction.example.instruction) for prediction in predictions}
    rows = examples_of(load_data(path).rows)
    return {row.index: row.output for row in rows if (row.index, row.instruction) not in evaluated}


if __name__ == "__main__":
    main()
