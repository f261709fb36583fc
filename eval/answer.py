"""Held-out rows are answered by the base and the tuned model; the answers are all that scoring needs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from sft.answerer import Answerer, EncodedPrompt
from sft.data import load_data
from sft.errors import UserError
from sft.generation import Answer, batches, effective_settings
from sft.loss import add_token_nll, reference_nll
from sft.records import Example, Prediction
from sft.run import read_manifest, read_side
from sft.split import category_head
from sft.tokenization import encode_prompt, encode_text

SYSTEMS = ("base", "tuned")


class Question(NamedTuple):
    """A held-out row, encoded.

    `prompt` is None where the question does not fit the model. `likelihoods` holds the (prompt, reference) ids
    whose −ln p is wanted, by Prediction's field names; what does not fit the model is left out.
    """

    example: Example
    prompt: EncodedPrompt | None
    reference: list[int]
    likelihoods: dict[str, tuple[list[int], list[int]]]


def held_out_rows(answerer: Answerer) -> list[Example]:
    """The run's test rows, at most `eval.rows_per_category` of each. Raises UserError when there are none."""
    config = answerer.config
    data = load_data(config.data.path, config.data.revision)
    known = read_manifest(answerer.run)["identity"]["data"]
    if data.sha256 != known:
        raise UserError(
            f"{config.data.path}: its rows are not those that {answerer.run} was trained with, so no row can be "
            "trusted to be held out; give the same file with data.path=…"
        )
    rows = category_head(read_side(answerer.run, "test", data.examples), config.eval.rows_per_category)
    if not rows:
        raise UserError(f"{answerer.run}: its test side is empty; train with a data.test_share above 0")
    return rows


def answer_rows(answerer: Answerer, rows: Sequence[Example]) -> Iterator[Prediction]:
    """Answer every row with each system and measure the reference's −ln p; in the systems' and rows' order.

    A row whose question does not fit the model is predicted as an error with an empty answer.
    """
    questions = [_question(answerer, example) for example in rows]
    add_token_nll(answerer.model.get_base_model())
    settings = effective_settings(answerer.generation)
    for system in SYSTEMS:
        with answerer.as_system(system):
            answers = _answers(answerer, questions, system)
            likelihoods = _likelihoods(answerer, questions, system)
        for position, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            prompt = question.prompt or EncodedPrompt("", [], False)
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
                reference_tokens_in_prompt=repeated if question.prompt else None,
                reference_nll=likelihoods.get((position, "reference_nll")),
                reference_nll_without_context=likelihoods.get((position, "reference_nll_without_context")),
            )


def _question(answerer: Answerer, example: Example) -> Question:
    reference = encode_text(answerer.tokenizer, example.output)
    try:
        prompt = answerer.prompt(example.instruction, example.input)
    except UserError:
        return Question(example, None, reference, {})
    prompts = {"reference_nll": prompt.ids}
    if example.input:
        bare = answerer.template.render(example.instruction)
        prompts["reference_nll_without_context"] = encode_prompt(answerer.tokenizer, bare)
    fitting = {
        n: (ids, reference) for n, ids in prompts.items() if len(ids) + len(reference) <= answerer.context_length
    }
    return Question(example, prompt, reference, fitting)


def _answers(answerer: Answerer, questions: Sequence[Question], system: str) -> list[Answer]:
    prompts = {position: q.prompt.ids for position, q in enumerate(questions) if q.prompt}
    answers = [Answer("", "error", 0)] * len(questions)
    torch.manual_seed(answerer.config.eval.seed)
    positions = list(prompts)
    with tqdm(total=len(prompts), unit="answer", desc=f"{system}: answering") as bar:
        for batch in batches(
            list(prompts.values()), answerer.generation["max_new_tokens"], answerer.config.eval.batch_tokens
        ):
            rows = [positions[place] for place in batch]
            for position, answer in zip(rows, answerer.answer([prompts[row] for row in rows]), strict=True):
                answers[position] = answer
            bar.update(len(batch))
    return answers


def _likelihoods(answerer: Answerer, questions: Sequence[Question], system: str) -> dict[tuple[int, str], float]:
    wanted = {(position, name): pair for position, q in enumerate(questions) for name, pair in q.likelihoods.items()}
    keys, pairs = list(wanted), list(wanted.values())
    measured: dict[tuple[int, str], float] = {}
    pad = answerer.tokenizer.pad_token_id
    with tqdm(total=len(keys), unit="row", desc=f"{system}: likelihood of the references") as bar:
        for batch in batches([prompt + ref for prompt, ref in pairs], 0, answerer.config.eval.batch_tokens):
            prompts, references = [pairs[place][0] for place in batch], [pairs[place][1] for place in batch]
            values = reference_nll(answerer.model, pad, prompts, references)
            measured |= zip([keys[place] for place in batch], values, strict=True)
            bar.update(len(batch))
    return measured
