"""`python -m eval RUN`: answer a run's held-out rows with base and tuned model, then score and report."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from eval.answering.answer import answer_under, planned_provenance, rows_to_answer
from eval.answering.place import evaluation_directory
from eval.answering.shots import draw_shots
from eval.benchmarks.known import BENCHMARKS
from eval.benchmarks.read import Asked, read_benchmark
from eval.predictions import SYSTEMS, read_predictions
from eval.score import outputs_by_name, report
from eval.tracked import report_scores
from sft.config.sections import Config
from sft.data.rows import examples_of
from sft.generation.answerer import load_answerer, open_run
from sft.run.bare_adapter import is_bare_adapter
from sft.run.directory import in_use
from sft.run.held_out import read_side, training_data
from sft.run.provenance import is_answered
from sft.system.files import alone_in
from sft.system.processes import RANK


def evaluate(
    run: Path,
    config: Config,
    overrides: Sequence[str],
    allow_other_template: bool,
    checkpoint: int | None,
    output: Path | None,
    force: bool,
    benchmark: str | None = None,
) -> None:
    """Answer with a finished run, or with its checkpoint of that step; `config` is its own with the overrides.

    The rows are those of the `benchmark`, which `eval.data` then holds, or as `rows_to_answer` says. The results go to
    `output`. Without one they go into the run's directory. Answers that are there already are scored again; other
    answers are replaced under `force` only. Raises UserError otherwise.
    """
    with in_use(run):
        data = None if is_bare_adapter(run) else training_data(run, config)
        rows, choices = _asked(config, benchmark) if benchmark else Asked(rows_to_answer(run, config, data), [])
        trained = None if data is None else read_side(run, "train", data)
        shots = draw_shots(rows, trained, config.eval.shots, config.eval.seed)
        directory = evaluation_directory(run, benchmark or config.eval.data, output, checkpoint)
        opened = open_run(run, overrides, allow_other_template, checkpoint)
        provenance = planned_provenance(opened, rows, [opened.config.generation], SYSTEMS, benchmark)
        file = directory / "predictions.jsonl"
        with alone_in(directory) if RANK == 0 else contextlib.nullcontext():
            if not is_answered(directory, [file.name], provenance, force):
                generation = {file: opened.config.generation}
                answerer = load_answerer(opened)
                answer_under(answerer, rows, generation, SYSTEMS, True, provenance, shots, choices)
            if RANK == 0:
                # None: what a bare adapter was trained on is not known
                outputs = None if trained is None else outputs_by_name(examples_of(trained))
                predictions = list(read_predictions(file))
                results = report(
                    predictions, file, directory, config.eval.resamples, config.eval.seed, outputs, provenance
                )
                if directory == run / "eval":  # the held-out rows, and nothing else
                    report_scores(run, results)


def _asked(config: Config, benchmark: str) -> Asked:
    """The benchmark's rows, in `eval.data`, and their choices."""
    limit, allowed = config.eval.rows_per_category, config.data.allow_dropped
    return read_benchmark(BENCHMARKS[benchmark], config.eval.data or "", limit, allowed)
