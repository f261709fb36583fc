"""Rows become questions: what is asked of a model, encoded once for all systems and settings."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sft.data.records import Example
from sft.generation.answerer import Answerer, EncodedPrompt
from sft.generation.generate import Answer
from sft.prompt.encode import encode_answer, encode_prompt
from sft.prompt.shots import Shot, briefly, render_with_shots
from sft.system.errors import UserError
from sft.system.visible import counted

LIKELIHOODS = ("reference_nll", "reference_nll_without_context")
"""`Prediction`'s fields of the reference's likelihood, given the prompt and given it without its context."""


class Question(NamedTuple):
    """A row, encoded.

    `prompt` is None where the question does not fit the model. `likelihoods` holds the (prompt, reference) ids
    whose −ln p is wanted, by Prediction's field names, or by `choice_key` where one of the `choices` is the answer;
    what does not fit the model is left out. `shots` are the examples in the prompt.
    """

    example: Example
    prompt: EncodedPrompt | None
    reference: list[int]
    likelihoods: dict[str, tuple[list[int], list[int]]]
    shots: Sequence[Example] = ()
    choices: Sequence[str] = ()


def choice_key(place: int) -> str:
    """The name of a choice's likelihood, by its place."""
    return f"choice {place}"


def chosen(question: Question, nll: Sequence[float]) -> Answer:
    """The likeliest of a question's choices as its answer; `nll` are their Σ −ln p over their tokens, in nats.

    An error where the model gives one of them no likelihood.
    """
    if not all(map(math.isfinite, nll)):
        return Answer("", "error", 0)
    best = min(range(len(nll)), key=nll.__getitem__)
    return Answer(question.choices[best], "chosen", len(question.likelihoods[choice_key(best)][1]))


def questions(
    answerer: Answerer,
    rows: Sequence[Example],
    shots: Sequence[Sequence[Example]],
    choices: Sequence[Sequence[str]],
    new_tokens: int,
    likelihoods: bool,
) -> list[Question]:
    """The rows as questions; `shots` and `choices` belong to the rows in their order, or are empty.

    With `likelihoods` those of the references are wanted, too. Rows with choices are answered by their likelihoods, and
    need no other.
    """
    shown = shots or [()] * len(rows)
    offered = choices or [()] * len(rows)
    return [
        _question(answerer, *row, new_tokens, likelihoods) for row in zip(rows, shown, offered, strict=True)
    ]  # fmt: skip


def _question(
    answerer: Answerer,
    example: Example,
    shots: Sequence[Example],
    choices: Sequence[str],
    new_tokens: int,
    likelihoods: bool,
) -> Question:
    def asked(instruction: str) -> str:
        return briefly(instruction) if answerer.config.eval.brief else instruction

    tokenizer, history = answerer.tokenizer, example.history
    reference = encode_answer(tokenizer, example.output)
    shown = [Shot(asked(shot.instruction), shot.input, shot.output) for shot in shots]
    instruction = asked(example.instruction)
    try:
        prompt = answerer.prompt(instruction, example.input, new_tokens, history, shown)
    except UserError:
        return Question(example, None, reference, {}, (), choices)
    wanted: dict[str, tuple[list[int], list[int]]] = {}
    if choices:
        wanted = {choice_key(n): (prompt.ids, encode_answer(tokenizer, choice)) for n, choice in enumerate(choices)}
    elif likelihoods:
        wanted[LIKELIHOODS[0]] = (prompt.ids, reference)
        if example.input:
            alone = render_with_shots(answerer.template, shown[: prompt.shots], instruction, history=history)
            wanted[LIKELIHOODS[1]] = (encode_prompt(tokenizer, alone), reference)
    fitting = {name: pair for name, pair in wanted.items() if sum(map(len, pair)) <= answerer.context_length}
    if choices and len(fitting) < len(choices):
        return Question(example, None, reference, {}, (), choices)
    return Question(example, prompt, reference, fitting, shots[: prompt.shots], choices)


def fewer_shots(asked: Sequence[Question], wanted: int, room: int) -> Iterator[str]:
    """A line where prompts hold fewer examples than wanted, because `room` tokens hold no more."""
    fewer = [len(question.shots) for question in asked if question.prompt and len(question.shots) < wanted]
    if fewer:
        few = (
            f"the prompts of {len(fewer):,} of {counted(len(asked), 'row')} have room for fewer than {wanted} examples"
        )
        yield f"eval.shots: {few} in {room:,} tokens (at least {min(fewer)}); a smaller number shows all rows the same"
