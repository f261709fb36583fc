"""`python -m eval score`: score predictions that are already there, and report. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from eval.predictions import Prediction, read_predictions
from eval.render.html import render_html
from eval.render.markdown import render_markdown
from eval.report.document import document
from eval.report.terminal import print_table
from eval.scoring.score import score
from eval.sweep import read_sweep_results
from sft.system.errors import UserError
from sft.system.files import output_directory, write_whole


def score_file(path: Path, output: Path | None, training_data: str | None) -> None:
    """Score a predictions file into `output`, or the directory it is in."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python -m eval RUN` writes one")
    directory = output_directory(output or path.parent)
    predictions = list(read_predictions(path))
    outputs = training_outputs(training_data, predictions) if training_data else None
    report(predictions, directory, training_outputs=outputs)


def report(
    predictions: Sequence[Prediction],
    directory: Path,
    resamples: int = 10_000,
    seed: int = 0,
    training_outputs: Mapping[str, str] | None = None,
) -> None:
    """Score, write results and report, print the table."""
    results = score(predictions, resamples, seed, training_outputs)
    blocks = document(results, predictions, read_sweep_results(directory / "sweep"))
    reports = {"report.md": render_markdown(blocks), "report.html": render_html(blocks)}
    for name, text in (results.texts() | reports).items():
        write_whole(directory / name, text)
    print_table(results, Console())
    print(f"{directory / 'report.html'}: the whole report; report.md, results.json and samples.jsonl are beside it")


def training_outputs(path: str, predictions: Sequence[Prediction]) -> dict[str, str]:
    """Outputs, by index, of the rows that were not evaluated.

    A benchmark of other questions may count its rows from 1, too, so a row is known by its question as well.
    """
    from sft.data.read import load_data  # takes half a second, and most calls have no such data
    from sft.data.rows import examples_of

    evaluated = {(prediction.example.index, prediction.example.instruction) for prediction in predictions}
    rows = examples_of(load_data(path).rows)
    return {row.index: row.output for row in rows if (row.index, row.instruction) not in evaluated}
