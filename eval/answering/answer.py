"""Rows are answered by the base and the tuned model; the answers are all that scoring needs.

The work is a fixed list of jobs, each some rows of one system. A finished job is a line in a file beside the
predictions, so an interrupted evaluation goes on where it stopped, and several processes share the list; what shares
a batch, and with it the answers, is the same however the work was divided.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from datasets import Dataset

from eval.answering.questions import LIKELIHOODS, Question, choice_key, chosen, fewer_shots, questions
from eval.predictions import Prediction, predictions_sha256, rows_sha256, write_predictions
from sft.checks.checks import refuse
from sft.checks.data_checks import drops
from sft.config.repetition_penalty import penalty_hazards
from sft.config.sections import Config
from sft.data.files.sources import Source
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.data.split import category_head, hash_order
from sft.generation.answerer import Answerer, EncodedPrompt, Opened
from sft.generation.batch.decoding import batches
from sft.generation.generate import Answer
from sft.generation.pace import Pace, Watch
from sft.generation.settings import effective_settings
from sft.model.loss import reference_nll
from sft.prompt.encode import eos_id
from sft.prompt.headings import headings
from sft.prompt.lost_turns import lost_turns
from sft.run.held_out import read_side, training_data
from sft.run.provenance import Provenance, Record, write_record
from sft.system.errors import UserError, say, warn
from sft.system.files import text_sha256
from sft.system.progress import Progress
from sft.system.waiting import EstimatedBar

NO_PROMPT = EncodedPrompt("", [], False)
ANSWER = "answer"
LIKELIHOOD = "likelihood of the references"

JOB_BATCHES = 4
"""Full batches that an answering job makes, at least one of each setting: the more, the less its end weighs, when no
row is waiting for the places that come free, and the more is lost by an interruption."""


class Job(NamedTuple):
    """Work for one system: rows to answer, or a batch of (row, field) pairs whose likelihood is measured."""

    kind: str
    system: str
    rows: list[int]
    fields: list[str]


def rows_to_answer(run: Path, config: Config, data: Dataset | None = None) -> list[Example]:
    """The rows of `eval.data`, or the run's test rows; at most `eval.rows_per_category` of each category.

    `data` is the run's `training_data`; None: it is read here where it is needed. Raises UserError when there are no
    rows, when more of them cannot be used than `data.allow_dropped` says, and when the run's data or split changed
    since it was trained.
    """
    limit = config.eval.rows_per_category
    if config.eval.data:
        columns = config.data.columns_of(config.eval.data) if config.eval.columns is None else config.eval.columns
        found = load_data([Source(config.eval.data, columns=columns)], groups=config.data.groups)
        for line in (*found.read_report(), *found.drop_report()):
            say(line, sys.stderr)
        refuse([drops(found, config.data.allow_dropped, "answer the rest")])
        return [*examples_of(category_head(hash_order(found.rows), limit))]
    data = training_data(run, config) if data is None else data
    rows = [*examples_of(category_head(read_side(run, "test", data), limit))]
    if not rows:
        raise UserError(
            f"{run}: its test side is empty (data.test_share is 0, or there are too few rows); give others: eval.data"
        )
    return rows


def answer_under(
    answerer: Answerer,
    rows: Sequence[Example],
    settings: Mapping[Path, Mapping[str, Any]],
    systems: Sequence[str],
    likelihoods: bool,
    provenance: Provenance | None = None,
    shots: Sequence[Sequence[Example]] = (),
    choices: Sequence[Sequence[str]] = (),
) -> list[list[Prediction]]:
    """Answer every row with each system under each of the generation settings, and write each one's predictions.

    All go into one directory, with a record of their `provenance` where one is given.

    Prompts are read once for all settings. With `likelihoods` the references' −ln p is measured, too, which no setting
    changes. Predictions come in the settings', systems' and rows' order; a row whose question does not fit the model
    is an error with an empty answer. `shots` are the examples in front of each row; a row with `choices` is answered
    with the likeliest of them. Every process takes its share; all return the whole.
    """
    new_tokens = max(generation["max_new_tokens"] for generation in settings.values())
    answerer.check_room(new_tokens)
    asked = questions(answerer, rows, shots, choices, new_tokens, likelihoods)
    jobs = [job for system in systems for job in _jobs(answerer, asked, new_tokens, len(settings), system)]
    state = PartialState(cpu=answerer.model.device.type == "cpu")
    if state.is_main_process:
        _warn(answerer, asked, settings.values(), max(map(len, shots), default=0))
    progress = {path: Progress(path, state.process_index) for path in settings}
    for path, generation in settings.items():
        progress[path].begin(_identity(answerer, generation, settings, asked, jobs))
    undone = [k for k in range(len(jobs)) if not all(k in one.done for one in progress.values())]
    mine = [k for k in undone if k % state.num_processes == state.process_index]
    left = sum(len(jobs[k].rows) * (1 if jobs[k].fields else len(settings)) for k in mine)
    pace = Pace(answerer.config.eval.batch_tokens, new_tokens, len(settings))
    with EstimatedBar(lambda: pace.seconds_left, total=left, unit="row", disable=not state.is_main_process) as bar:
        tell = {k: _expect(pace, asked, jobs[k], bar) for k in mine}
        for system, its_jobs in itertools.groupby(mine, key=lambda k: jobs[k].system):
            with answerer.as_system(system):
                for k in its_jobs:
                    bar.set_description_str(f"{system}: {jobs[k].kind}", refresh=False)
                    results = _do(answerer, asked, jobs[k], list(settings.values()), tell[k])
                    for one, result in zip(progress.values(), results, strict=True):
                        one.add(k, result)
    state.wait_for_everyone()
    predictions = {
        path: list(_predictions(generation, asked, systems, jobs, progress[path].all_results()))
        for path, generation in settings.items()
    }
    state.wait_for_everyone()
    if state.is_main_process:
        _write(predictions, progress, provenance)
    return list(predictions.values())


def _warn(answerer: Answerer, asked: Sequence[Question], settings: Iterable[Mapping[str, Any]], shots: int) -> None:
    """Say what settings, template and the model's length do to the questions."""
    contexts = [question.example.input for question in asked if question.prompt]
    prompts = [question.prompt.ids for question in asked if question.prompt]
    for generation in settings:
        warn(penalty_hazards(generation, contexts, prompts, eos_id(answerer.tokenizer)))
    warn(lost_turns(answerer.template, [question.example.history for question in asked]))
    warn(list(fewer_shots(asked, shots, answerer.context_length)))


class Told(NamedTuple):
    """Whom to tell of a job's work: each of its steps, and each number of results."""

    watch: Watch
    results: Callable[[int], None]


def _expect(pace: Pace, questions: Sequence[Question], job: Job, bar: EstimatedBar) -> Told:
    """Count in a job that is yet to be done."""
    tokens = sum(len(ids) for pair in _pairs(questions, job) for ids in pair) if job.fields else 0
    prompts = [len(question.prompt.ids) for row in job.rows if (question := questions[row]).prompt]
    watch = pace.expect([] if job.fields else prompts, bar.update_time)
    pace.expect_scores(tokens)

    def results(count: int) -> None:
        pace.scored(tokens) if job.fields else pace.ended(count)
        bar.update(count)

    return Told(watch, results)


def _pairs(questions: Sequence[Question], job: Job) -> list[tuple[list[int], list[int]]]:
    """The (prompt, reference) ids whose likelihood the job measures."""
    return [questions[row].likelihoods[field] for row, field in zip(job.rows, job.fields, strict=True)]


def _write(
    predictions: Mapping[Path, list[Prediction]], progress: Mapping[Path, Progress], provenance: Provenance | None
) -> None:
    """The record first, and progress forgotten last: a kill anywhere in between costs no answer."""
    if provenance:
        files = {path.name: predictions_sha256(found) for path, found in predictions.items()}
        work = {path.name: one.identity for path, one in progress.items()}
        write_record(next(iter(predictions)).parent, Record(provenance=provenance, files=files, work=work))
    for path, found in predictions.items():
        write_predictions(found, path)
    for one in progress.values():
        one.remove()


def planned_provenance(
    opened: Opened,
    rows: Sequence[Example],
    settings: Sequence[Mapping[str, Any]],
    systems: Sequence[str],
    benchmark: str | None = None,
) -> Provenance:
    """What `answer_under` will make the answers of; `benchmark` is the name of that whose rows they are."""
    config = opened.config
    return Provenance(
        run=opened.trained.id,
        base=config.model.base,
        base_commit=opened.base.commit,
        base_sha256=opened.base.sha256,
        learned=opened.trained.learned_sha256,
        template=opened.template.sha256,
        loading=config.model.loading | {"dtype": config.model.dtype, "quantization": config.quantization},
        data=config.eval.data,
        rows=rows_sha256(rows),
        systems=[*systems],
        generation=[dict(one) for one in settings],
        seed=config.eval.seed,
        batch_tokens=config.eval.batch_tokens,
        headings=[*headings(opened.template)],
        deviations=opened.deviations,
        shots=config.eval.shots,
        brief=config.eval.brief,
        benchmark=benchmark,
    )


def _jobs(answerer: Answerer, asked: Sequence[Question], new_tokens: int, settings: int, system: str) -> Iterator[Job]:
    budget = answerer.config.eval.batch_tokens
    answered = {
        row: question.prompt.ids for row, question in enumerate(asked) if question.prompt and not question.choices
    }
    rows, prompts = list(answered), list(answered.values())
    for batch in batches(prompts, new_tokens, max(1, JOB_BATCHES // settings) * budget):
        yield Job("answering", system, [rows[place] for place in batch], [])
    pairs = [(row, field) for row, question in enumerate(asked) for field in question.likelihoods]
    texts = [prompt + reference for prompt, reference in (asked[row].likelihoods[field] for row, field in pairs)]
    for batch in batches(texts, 0, budget):
        members = [pairs[place] for place in batch]
        yield Job(LIKELIHOOD, system, [row for row, _ in members], [field for _, field in members])


def _identity(
    answerer: Answerer,
    generation: Mapping[str, Any],
    settings: Mapping[Path, Mapping[str, Any]],
    asked: Sequence[Question],
    jobs: Sequence[Job],
) -> str:
    # Of one setting's answers, the others that share its batches are a part: in 16 bits they may change the rounding.
    config = answerer.config
    answering = [generation, [*settings.values()], config.eval.seed, config.eval.batch_tokens]
    answering += [headings(answerer.template)]
    shown = [[shot.index for shot in question.shots] for question in asked]
    answering += [config.eval.brief, shown] if config.eval.brief or any(shown) else []
    parts = [
        answerer.identity,
        json.dumps(answering, sort_keys=True),
        rows_sha256(question.example for question in asked),
        json.dumps(jobs),
    ]
    return text_sha256(["\0".join(parts)])


def _do(
    answerer: Answerer,
    questions: Sequence[Question],
    job: Job,
    settings: Sequence[Mapping[str, Any]],
    told: Told,
) -> list[list[Any]]:
    """The job's results under each of the settings, from the system that answers at the moment."""
    if not job.fields:
        prompts = [question.prompt.ids for row in job.rows if (question := questions[row]).prompt]
        # A seed of its own makes a row's sampled answer the same whatever it shares a batch with.
        seeds = [answerer.config.eval.seed * 1_000_003 + row for row in job.rows]
        answers: list[list[Any]] = [[None] * len(prompts) for _ in settings]
        for setting, place, answer in answerer.answer_all(prompts, settings, seeds, told.watch):
            answers[setting][place] = answer
            told.results(1)
        return answers
    pairs = _pairs(questions, job)
    prompts, references = [prompt for prompt, _ in pairs], [reference for _, reference in pairs]
    found = reference_nll(answerer.model, answerer.tokenizer.pad_token_id, prompts, references)
    told.results(len(found))
    return [list(found) for _ in settings]


def _predictions(
    generation: Mapping[str, Any],
    questions: Sequence[Question],
    systems: Sequence[str],
    jobs: Sequence[Job],
    results: dict[int, list[Any]],
) -> Iterator[Prediction]:
    found: dict[tuple[str, int, str], Any] = {}
    for number, job in enumerate(jobs):
        fields = job.fields or [ANSWER] * len(job.rows)
        for row, field, result in zip(job.rows, fields, results[number], strict=True):
            found[job.system, row, field] = result
    settings = effective_settings(generation)
    for system in systems:
        for row, question in enumerate(questions):
            likelihoods = {field: found.get((system, row, field)) for field in LIKELIHOODS}
            if question.choices and question.prompt:
                places = range(len(question.choices))
                nll = [found[system, row, choice_key(place)] for place in places]
                answer = chosen(question, nll)
                likelihoods[LIKELIHOODS[0]] = nll[question.choices.index(question.example.output)]
            else:
                answer = Answer(*found.get((system, row, ANSWER), ("", "error", 0)))
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
                **likelihoods,
                reference_tokens_in_prompt=repeated if question.prompt else None,
                shots=tuple(shot.index for shot in question.shots),
            )
