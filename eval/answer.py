"""Rows are answered by the base and the tuned model; the answers are all that scoring needs.

The work is a fixed list of jobs, each one batch of one system. A finished job is a line in a file beside the
predictions, so an interrupted evaluation goes on where it stopped, and several processes share the list; batches,
and with them the answers, are the same however the work was divided.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from tqdm import tqdm

from sft.answerer import Answerer, EncodedPrompt
from sft.config import Config
from sft.data import load_data
from sft.errors import UserError
from sft.generation import Answer, batches, effective_settings
from sft.hazards import generation_hazards, warn
from sft.loss import add_token_nll, reference_nll
from sft.records import Example, Prediction, write_predictions
from sft.run import read_manifest, read_side
from sft.split import category_head, hash_order
from sft.tokenization import encode_prompt, encode_text, eos_id

SYSTEMS = ("base", "tuned")
NO_PROMPT = EncodedPrompt("", [], False)
_PROGRESS = ".{}.unfinished-{}"


class Question(NamedTuple):
    """A row, encoded.

    `prompt` is None where the question does not fit the model. `likelihoods` holds the (prompt, reference) ids
    whose −ln p is wanted, by Prediction's field names; what does not fit the model is left out.
    """

    example: Example
    prompt: EncodedPrompt | None
    reference: list[int]
    likelihoods: dict[str, tuple[list[int], list[int]]]


class Job(NamedTuple):
    """One batch for one system: rows to answer, or (row, field) pairs whose likelihood is measured."""

    kind: str
    system: str
    rows: list[int]
    fields: list[str]


def rows_to_answer(run: Path, config: Config) -> list[Example]:
    """The rows of `eval.data`, or the run's test rows; at most `eval.rows_per_category` of each category.

    Raises UserError when there are none, and when the run's data or split changed since it was trained.
    """
    if config.eval.data:
        return category_head(hash_order(load_data(config.eval.data).examples), config.eval.rows_per_category)
    rows = category_head(read_side(run, "test", training_data(run, config)), config.eval.rows_per_category)
    if not rows:
        raise UserError(f"{run}: its test side is empty; train with a data.test_share above 0")
    return rows


def training_data(run: Path, config: Config) -> list[Example]:
    """All rows of the run's data. Raises UserError when they are not those it was trained with."""
    data = load_data(config.data.path, config.data.revision)
    if data.sha256 != read_manifest(run)["identity"]["data"]:
        raise UserError(
            f"{config.data.path}: its rows are not those that {run} was trained with, so no row can be "
            "trusted to be held out; give the same file with data.path=…"
        )
    return data.examples


def answer_rows(
    answerer: Answerer,
    rows: Sequence[Example],
    path: Path,
    systems: Sequence[str] = SYSTEMS,
    likelihoods: bool = True,
    keep_progress: bool = False,
) -> list[Prediction]:
    """Answer every row with each system, measure the references' −ln p, and write the predictions to `path`.

    Predictions come in the systems' and rows' order; a row whose question does not fit the model is an error with
    an empty answer. With `likelihoods` False only answers are made. Finished work stays beside `path` with
    `keep_progress`, so that the same call again does nothing twice; `forget_progress` removes it. Every process
    takes its share; all return the whole.
    """
    questions = [_question(answerer, example, likelihoods) for example in rows]
    jobs = [job for system in systems for job in _jobs(answerer, questions, system)]
    state = PartialState(cpu=answerer.model.device.type == "cpu")
    if state.is_main_process:
        asked = [(question.example.input, question.prompt.ids) for question in questions if question.prompt]
        contexts, prompts = [context for context, _ in asked], [ids for _, ids in asked]
        warn(generation_hazards(answerer.generation, contexts, prompts, eos_id(answerer.tokenizer)))
    progress = Progress(path, _identity(answerer, rows, jobs), state.process_index)
    add_token_nll(answerer.model.get_base_model())
    mine = [k for k in range(state.process_index, len(jobs), state.num_processes) if k not in progress.done]
    with tqdm(total=sum(len(jobs[k].rows) for k in mine), unit="row", disable=not state.is_main_process) as bar:
        for k in mine:
            bar.set_description(f"{jobs[k].system}: {jobs[k].kind}")
            progress.add(k, _do(answerer, questions, jobs[k], k))
            bar.update(len(jobs[k].rows))
    state.wait_for_everyone()
    predictions = list(_predictions(answerer, questions, systems, jobs, progress.all_results()))
    state.wait_for_everyone()
    if state.is_main_process:
        write_predictions(predictions, path)
        if not keep_progress:
            forget_progress(path)
    return predictions


def forget_progress(path: Path) -> None:
    """Remove what `answer_rows` kept beside `path`: the predictions are written."""
    for file in path.parent.glob(_PROGRESS.format(path.name, "*")):
        file.unlink()


class Progress:
    """Finished jobs of one evaluation, kept beside `path` in one file a process.

    Work of another evaluation (other model, adapter, rows, settings) is told by `identity` and thrown away.
    """

    def __init__(self, path: Path, identity: str, process: int) -> None:
        self.pattern = _PROGRESS.format(path.name, "*")
        self.directory = path.parent
        self.identity = identity
        self.file = path.with_name(_PROGRESS.format(path.name, process))
        self.done = set(self.all_results())
        if not self.file.exists() or self._header(self.file) != identity:
            self.file.write_text(json.dumps(identity) + "\n", encoding="utf-8")
        else:  # a line that was cut by the interruption must not swallow the next one
            with self.file.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)

    def add(self, job: int, results: list[Any]) -> None:
        """Keep the results of a job, one for each of its rows."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([job, results], ensure_ascii=False) + "\n")

    def all_results(self) -> dict[int, list[Any]]:
        """Results by job number, from all processes."""
        results: dict[int, list[Any]] = {}
        for file in sorted(self.directory.glob(self.pattern)):
            if self._header(file) == self.identity:
                lines = file.read_bytes().split(b"\n")[1:-1]  # what follows the last newline was cut
                results |= dict(json.loads(line) for line in lines)
        return results

    def _header(self, file: Path) -> str | None:
        first = file.read_bytes().split(b"\n", 1)
        return json.loads(first[0]) if len(first) == 2 else None


def _question(answerer: Answerer, example: Example, likelihoods: bool) -> Question:
    reference = encode_text(answerer.tokenizer, example.output)
    try:
        prompt = answerer.prompt(example.instruction, example.input)
    except UserError:
        return Question(example, None, reference, {})
    prompts = {"reference_nll": prompt.ids}
    if example.input:
        bare = answerer.template.render(example.instruction)
        prompts["reference_nll_without_context"] = encode_prompt(answerer.tokenizer, bare)
    room = answerer.context_length - len(reference)
    fitting = {name: (ids, reference) for name, ids in prompts.items() if len(ids) <= room}
    return Question(example, prompt, reference, fitting if likelihoods else {})


def _jobs(answerer: Answerer, questions: Sequence[Question], system: str) -> Iterator[Job]:
    budget = answerer.config.eval.batch_tokens
    rows = [row for row, question in enumerate(questions) if question.prompt]
    prompts = [question.prompt.ids for question in questions if question.prompt]
    for batch in batches(prompts, answerer.generation["max_new_tokens"], budget):
        yield Job("answering", system, [rows[place] for place in batch], [])
    pairs = [(row, field) for row, question in enumerate(questions) for field in question.likelihoods]
    texts = [prompt + reference for prompt, reference in (questions[row].likelihoods[field] for row, field in pairs)]
    for batch in batches(texts, 0, budget):
        yield Job(
            "likelihood of the references",
            system,
            [pairs[place][0] for place in batch],
            [pairs[place][1] for place in batch],
        )


def _identity(answerer: Answerer, rows: Sequence[Example], jobs: Sequence[Job]) -> str:
    adapter = (answerer.run / "adapter" / "adapter_model.safetensors").read_bytes()
    parts = [
        hashlib.sha256(adapter).hexdigest(),
        answerer.template.sha256,
        answerer.config.model.model_dump_json(),
        json.dumps([answerer.config.quantization, answerer.generation, answerer.config.eval.seed], sort_keys=True),
        json.dumps([dataclasses.astuple(row) for row in rows], ensure_ascii=False),
        json.dumps(jobs),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _do(answerer: Answerer, questions: Sequence[Question], job: Job, number: int) -> list[Any]:
    with answerer.as_system(job.system):
        if job.kind == "answering":
            # A seed of its own makes a sampled batch the same wherever and whenever it is drawn.
            torch.manual_seed(answerer.config.eval.seed * 1_000_003 + number)
            prompts = [question.prompt.ids for row in job.rows if (question := questions[row]).prompt]
            return [dataclasses.astuple(answer) for answer in answerer.answer(prompts)]
        pairs = [questions[row].likelihoods[field] for row, field in zip(job.rows, job.fields, strict=True)]
        prompts, references = [prompt for prompt, _ in pairs], [reference for _, reference in pairs]
        return list(reference_nll(answerer.model, answerer.tokenizer.pad_token_id, prompts, references))


def _predictions(
    answerer: Answerer,
    questions: Sequence[Question],
    systems: Sequence[str],
    jobs: Sequence[Job],
    results: dict[int, list[Any]],
) -> Iterator[Prediction]:
    answers: dict[tuple[str, int], Answer] = {}
    likelihoods: dict[tuple[str, int, str], float] = {}
    for number, job in enumerate(jobs):
        for place, result in enumerate(results[number]):
            if job.fields:
                likelihoods[job.system, job.rows[place], job.fields[place]] = result
            else:
                answers[job.system, job.rows[place]] = Answer(*result)
    settings = effective_settings(answerer.generation)
    for system in systems:
        for row, question in enumerate(questions):
            answer = answers.get((system, row), Answer("", "error", 0))
            prompt = question.prompt or NO_PROMPT
            seen = set(prompt.ids)
            repeated = sum(token in seen for token in question.reference) / max(1, len(question.reference))
            yield Prediction(
                system=system,
                example=question.example,
                prompt=prompt.text,
                text=answer.text,
                finish_reason=answer.finish_reason,
                prompt_tokens=len(prompt.ids),
                output_tokens=answer.tokens,
                generation=settings,
                context_shortened=prompt.context_shortened,
                reference_tokens=len(question.reference),
                reference_nll=likelihoods.get((system, row, "reference_nll")),
                reference_nll_without_context=likelihoods.get((system, row, "reference_nll_without_context")),
                reference_tokens_in_prompt=repeated if question.prompt else None,
            )
