"""Answer a run's held-out rows with base and tuned model, score them by task category, and report.

    python -m eval runs/calm7b [section.key=value …]
    python -m eval score predictions.jsonl              score answers again, or anybody's; needs no torch

The results are in runs/<name>/eval/: predictions.jsonl, samples.jsonl, results.json, report.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sft.config import load_config
from sft.errors import UserError, exit_on_user_error
from sft.records import Prediction, read_predictions

RESAMPLES, SEED = 10_000, 0


def main() -> None:
    """Read the command line and do what it says."""
    with exit_on_user_error("interrupted; the same command goes on where it stopped"):
        if sys.argv[1:2] == ["score"]:
            score_file()
        else:
            evaluate_run()


def evaluate_run() -> None:
    """`python -m eval RUN`: answer, then score."""
    parser = argparse.ArgumentParser(
        prog="python -m eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the run's settings")
    parser.add_argument("--allow-other-template", action="store_true", help="allow a prompt.template not trained with")
    arguments = parser.parse_intermixed_args()

    from sft.run import require_finished

    require_finished(arguments.run)

    from eval.answer import answer_rows, rows_to_answer
    from sft.answerer import load_answerer

    config = load_config(arguments.run / "config.yaml", arguments.overrides)
    rows = rows_to_answer(arguments.run, config)
    directory = make_directory(arguments.run / "eval" / (Path(config.eval.data).stem if config.eval.data else ""))
    answerer = load_answerer(arguments.run, arguments.overrides, arguments.allow_other_template)
    predictions = answer_rows(answerer, rows, directory / "predictions.jsonl")
    if int(os.environ.get("RANK", 0)) == 0:
        report(predictions, directory, config.eval.resamples, config.eval.seed)


def score_file() -> None:
    """`python -m eval score FILE`: score predictions that are already there, into the directory they are in."""
    parser = argparse.ArgumentParser(prog="python -m eval score", description="Score a predictions.jsonl file.")
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--output", type=Path, help="directory for the results; the file's own if left out")
    arguments = parser.parse_args(sys.argv[2:])
    if not arguments.predictions.is_file():
        raise UserError(f"{arguments.predictions}: no such file; `python -m eval RUN` writes one")
    directory = make_directory(arguments.output or arguments.predictions.parent)
    report(list(read_predictions(arguments.predictions)), directory, RESAMPLES, SEED)


def make_directory(path: Path) -> Path:
    """`path`, which is now a directory. Raises UserError when it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made a directory: {error.strerror}") from None
    return path


def report(predictions: Sequence[Prediction], directory: Path, resamples: int, seed: int) -> None:
    """Score, write results and report, print the table."""
    from rich.console import Console

    from eval.report import markdown, print_table
    from eval.score import score, write_results

    results = score(predictions, resamples, seed)
    write_results(results, directory)
    (directory / "report.md").write_text(markdown(results, predictions), encoding="utf-8")
    print_table(results, Console())
    print(f"{directory / 'report.md'}: the whole report; results.json and samples.jsonl are beside it")


if __name__ == "__main__":
    main()
