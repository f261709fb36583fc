"""`python -m eval score`: score predictions that are already there, and report. No torch here."""

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from eval.benchmarks.known import BENCHMARKS
from eval.metrics.catalogue import BY_KEY, HEADLINE
from eval.predictions import BASE, TUNED, Prediction, examples_sha256, read_predictions, run_name
from eval.render.markdown import render_markdown
from eval.report.benchmark import benchmark_document, benchmark_title, print_benchmark
from eval.report.document import document
from eval.report.first_screen import ROWS_PAGE, Subject, title
from eval.report.rows_page import Look, rows_page
from eval.report.terminal import print_table
from eval.scoring.only import only
from eval.scoring.results import Results
from eval.scoring.score import score
from eval.scoring.sweep import SweepResults
from eval.sweep import read_sweep_results
from sft.config.load import data_section
from sft.data.files.sources import Source
from sft.data.records import Example
from sft.page.html import render_html
from sft.run.manifest import read_manifest
from sft.run.provenance import Provenance, file_lines_sha256, provenance_of
from sft.system.errors import UserError, say, warn
from sft.system.files import output_directory, read_json, write_whole
from sft.system.texts import language, text


def score_file(predictions: Path, output: Path | None, training_data: str | None, overrides: Sequence[str]) -> None:
    """Score a predictions file into `output`, or the directory it is in.

    `training_data` is as in `data.path`, and `overrides` are `data.key=value`.
    """
    if overrides and not training_data:
        raise UserError(f"command line: {overrides[0]} says how --training-data is read, and there is none")
    if not predictions.is_file():
        found = "a directory" if predictions.is_dir() else "no such file"
        raise UserError(f"{predictions}: {found}; `python -m eval RUN` writes answers to RUN/eval/predictions.jsonl")
    directory = output_directory(output or predictions.parent)
    answers = list(read_predictions(predictions))
    about = provenance_of(predictions)
    check_own_results(predictions, directory)
    known = outputs_of(predictions.parent) if about and not training_data else None
    outputs = known
    if training_data:
        data = data_section([training_data], overrides)
        outputs = training_outputs(data.sources, answers, data.leave_out)
    report(answers, predictions, directory, training_outputs=outputs, about=about)


def check_own_results(predictions: Path, directory: Path) -> None:
    """Raise UserError where the results in `directory` are of another file of answers that is there."""
    if not (directory / "results.json").is_file():
        return
    found = read_json(directory / "results.json")
    scored = found.get("predictions") if isinstance(found, dict) else None
    for other in directory.glob("*.jsonl"):
        if scored and other.name != predictions.name and file_lines_sha256(other) == scored:
            raise UserError(f"{directory}: holds the results of {other.name}; give those of another file an --output")


def report(
    predictions: Sequence[Prediction],
    file: Path,
    directory: Path,
    resamples: int = 10_000,
    seed: int = 0,
    training_outputs: Mapping[str, str] | None = None,
    about: Provenance | None = None,
) -> Results:
    """Score the predictions in `file`, write results and report into `directory`, print the table.

    Returns the results. `about` says whose answers these are; None: nobody knows.
    """
    found = score(predictions, resamples, seed, training_outputs)
    results = dataclasses.replace(found, about=about, predictions=file_lines_sha256(file))
    subject = subject_of(file, about)
    benchmark = BENCHMARKS.get(about.benchmark or "") if about else None
    if benchmark:
        results = results if benchmark.scored else only(results, benchmark.metrics)
        blocks = benchmark_document(results, predictions, subject, benchmark)
        decides = BY_KEY[next(iter(benchmark.metrics))] if benchmark.scored else None
        look = Look(benchmark_title(subject, benchmark), decides)
    else:
        blocks = document(results, predictions, subject, sweep_of(directory / "sweep", predictions, about))
        look = Look(title(results, subject), HEADLINE)
    if results.deltas.groups:
        look = look._replace(first=BASE, others=(TUNED,))
    reports = {"report.md": render_markdown(blocks), "report.html": render_html(blocks, language())}
    reports[ROWS_PAGE] = rows_page(results.samples, predictions, look)
    for name, content in (results.texts() | reports).items():
        write_whole(directory / name, content)
    if benchmark:
        print_benchmark(results, predictions, subject, benchmark, Console())
    else:
        print_table(results, subject, Console())
    say(text("report.written", path=directory / "report.html"))
    return results


def outputs_of(answers: Path) -> dict[str, str] | None:
    """What the run trained on whose `answers` a directory in it holds; None, with a warning, where that is gone."""
    from sft.config.load import load_config
    from sft.data.rows import examples_of
    from sft.run.held_out import read_side, training_data

    run = run_around(answers) or answers
    try:
        rows = read_side(run, "train", training_data(run, load_config(run / "config.yaml", to_train=False)))
    except UserError as error:
        warn([f"passages shared with training outputs are not looked for ({error}); --training-data names the rows"])
        return None
    return outputs_by_name(examples_of(rows))


def subject_of(file: Path, about: Provenance | None) -> Subject:
    """What a report on a file of answers is about: the run that it lies in, else the file."""
    if about is None:
        return Subject(run_name(file))
    run = run_around(file.parent)
    data = [Path(about.data).name] if about.data else []
    if run and not data:
        with contextlib.suppress(UserError):  # what cannot be read is not named
            manifest = read_manifest(run)
            data = [one.name for one in manifest.rows.files] if manifest.started == about.run else []
    base = Path(about.base).name if about.base_sha256 else about.base
    return Subject(run.name if run else run_name(file), base, ", ".join(data), about.run[:10])


def run_around(directory: Path) -> Path | None:
    """The run that a directory is in; None where it is in none."""
    inside = directory.absolute()
    return next((path for path in (inside, *inside.parents) if (path / "manifest.json").is_file()), None)


def outputs_by_name(rows: Iterable[Example]) -> dict[str, str]:
    """The rows' outputs by what a reader finds a row by; by its index where another row has that name, too."""
    outputs: dict[str, str] = {}
    for row in rows:
        name = row.named if outputs.get(row.named, row.output) == row.output else row.index
        outputs[name] = row.output
    return outputs


def sweep_of(directory: Path, predictions: Sequence[Prediction], about: Provenance | None) -> SweepResults | None:
    """The results of a sweep in `directory`, of the same model and rows; None where there is none, or of others."""
    sweep = read_sweep_results(directory)
    if sweep is None:
        return None
    same_model = about.same_model_and_rows(sweep.about) if about else sweep.about is None
    if same_model and sweep.rows_sha256 == examples_sha256(predictions):
        return sweep
    warn([f"{directory}: its sweep is of another model or other rows, and left out of the report"])
    return None


def training_outputs(
    sources: str | Sequence[Source], predictions: Sequence[Prediction], leave_out: Collection[str] = ()
) -> dict[str, str]:
    """Outputs, by index, of the rows that were not evaluated.

    A benchmark of other questions may count its rows from 1, too, so a row is known by its question as well.
    """
    from sft.data.read import load_data  # takes half a second, and most calls have no such data
    from sft.data.rows import examples_of

    evaluated = {(prediction.example.index, prediction.example.instruction) for prediction in predictions}
    found = load_data(sources, leave_out)
    for line in (*found.read_report(), *found.drop_report()):
        say(line, sys.stderr)
    rows = examples_of(found.rows)
    return outputs_by_name(row for row in rows if (row.index, row.instruction) not in evaluated)
