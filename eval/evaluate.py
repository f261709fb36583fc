"""`python -m eval RUN`: answer a run's held-out rows with base and tuned model, then score and report."""

from collections.abc import Sequence
from pathlib import Path

from eval.answering.answer import answer_under, rows_to_answer
from eval.predictions import SYSTEMS
from eval.score import report
from sft.config.sections import Config
from sft.data.rows import examples_of
from sft.generation.answerer import load_answerer
from sft.run.directory import in_use
from sft.run.held_out import read_side, training_data
from sft.system.files import output_directory
from sft.system.processes import RANK


def evaluate(run: Path, config: Config, overrides: Sequence[str], allow_other_template: bool) -> None:
    """Answer with a finished run; `config` is its own with the overrides. The results are in its directory."""
    with in_use(run):
        rows = rows_to_answer(run, config)
        trained = read_side(run, "train", training_data(run, config))
        directory = output_directory(run / "eval" / (Path(config.eval.data).stem if config.eval.data else ""))
        answerer = load_answerer(run, overrides, allow_other_template)
        settings = {directory / "predictions.jsonl": answerer.generation}
        (predictions,) = answer_under(answerer, rows, settings, SYSTEMS, likelihoods=True)
        if RANK == 0:
            outputs = {row.index: row.output for row in examples_of(trained)}
            report(predictions, directory, config.eval.resamples, config.eval.seed, outputs)
