"""Tokens a second of answers: this project's batches, and transformers' `generate` on prompts sorted by length.

Both have the same budget of padded tokens a batch. `fixed`: every answer has the same tokens. `varied`: answers end by
chance, since random weights never end one; both ways draw ends of the same odds, and not the same ends. This project's
batches are refilled where answers have ended.
"""

import itertools
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.gpu.work import Measures, Work, forget, peaks
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.generation.batch.decoding import batches
from sft.generation.generate import Answer, generate, generate_all
from sft.model.load import load_base
from sft.prompt.encode import encode_prompt, eos_id
from sft.prompt.template import ALPACA_JA


class Questions(NamedTuple):
    """What is answered, and by what: bf16 without an adapter, as an adapter is merged into such weights to answer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[list[int]]


def measures(work: Work, part: str) -> Measures:
    """Both ways under both kinds of settings; those of fixed length in small and in large batches."""
    questions = asked(work)
    tokens, eos = work.size.new_tokens, eos_id(questions.tokenizer)
    odds = math.log(questions.model.config.vocab_size / tokens)
    fixed = {"max_new_tokens": tokens, "temperature": 0.0, "suppress_tokens": [eos]}
    varied = {"max_new_tokens": 2 * tokens, "temperature": 1.0, "top_k": 0, "sequence_bias": [[[eos], odds]]}
    small, large = work.size.budgets
    for name, settings, budget in (
        ("fixed, small batches", fixed, small),
        ("fixed, large batches", fixed, large),
        ("varied, small batches", varied, small),
    ):
        for way, answer in (("refilled", refilled), ("generate", by_generate)):
            answers = answer(questions, settings, budget)
            yield f"{name}, {way}", partial(timed, work, answers, budget)


def asked(work: Work) -> Questions:
    """The model, and the prompts of the first rows; where there are fewer rows, they come again."""
    model, tokenizer = load_base(work.base, work.device, torch.bfloat16).eval(), work.tokenizer()
    examples = itertools.islice(itertools.cycle(examples_of(load_data(work.data).rows)), work.size.prompts)
    prompts = [encode_prompt(tokenizer, ALPACA_JA.render(e.instruction, e.input)) for e in examples]
    return Questions(model, tokenizer, prompts)


def refilled(questions: Questions, settings: dict[str, Any], budget: int) -> Iterator[Answer]:
    """This project's way."""
    model, tokenizer, prompts = questions
    found = generate_all(model, tokenizer, prompts, [settings], budget, seeds=range(len(prompts)))
    return (answer for _, _, answer in found)


def by_generate(questions: Questions, settings: dict[str, Any], budget: int) -> Iterator[Answer]:
    """transformers' `generate`, a batch of prompts of similar length after another."""
    model, tokenizer, prompts = questions
    torch.manual_seed(0)
    for batch in batches(prompts, settings["max_new_tokens"], budget):
        yield from generate(model, tokenizer, [prompts[place] for place in batch], settings)


def timed(work: Work, answers: Iterator[Answer], budget: int) -> dict[str, Any]:
    """Take all answers, and count their tokens by the clock."""
    forget(work.device)
    clock = time.perf_counter()
    tokens = sum(answer.tokens for answer in answers)
    if work.on_gpu:
        torch.cuda.synchronize(work.device)
    seconds = time.perf_counter() - clock
    found = {"prompts": work.size.prompts, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
    return found | {"budget": budget} | peaks(work.device)
