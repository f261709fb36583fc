"""Systems that understand nothing, and one that reads the context as well as a single sentence can. No torch here.

A score means little without them: echoing the question reaches a character F1 above .3 on closed questions.
Each is a list of answers, one a row; None where it has no answer to the row.
"""

import itertools
import random
import statistics
from collections.abc import Sequence

from eval.metrics.overlap import character_f1
from eval.metrics.text import normalise, sentences
from sft.data.records import Example

CONSTANT = "それは、世界の多くの国で人々に広く知られ、長い歴史の中で重要な役割を果たしてきたものの一つです。"
"""The answer of the constant floor: one sentence of frequent words that answers nothing."""

Answers = list[str | None]


def echo(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The question itself."""
    return [example.instruction for example in examples]


def shuffled(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The reference of another row of the category and group, each used once; None for the only such row."""
    answers: Answers = [None] * len(examples)
    for order in _by_kind(examples).values():
        random.Random(seed).shuffle(order)
        if len(order) > 1:
            # One cycle through the shuffled rows: no row can meet its own reference.
            for row, other in zip(order, order[1:] + order[:1], strict=True):
                answers[row] = examples[other].references[0]
    return answers


def constant(examples: Sequence[Example], seed: int = 0) -> Answers:
    """`CONSTANT`, whatever is asked."""
    return [CONSTANT] * len(examples)


def lead(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The beginning of the context, as long as the median reference of category and group; context rows only."""
    answers: Answers = [None] * len(examples)
    for rows in _by_kind(examples).values():
        median = round(statistics.median(len(examples[row].output) for row in rows))
        for row in rows:
            answers[row] = examples[row].input.strip()[:median] if is_context_row(examples[row]) else None
    return answers


def question_sentence(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The sentence of the context that shares most with the question; context rows only.

    Most different character bigrams; of equals the first counts. Where a passage answers, this one holds the answer
    more often than not, so what a system has to beat by answering is more than finding it.
    """

    def best(example: Example) -> str:
        asked = _bigrams(example.instruction)
        return max(sentences(example.input), key=lambda sentence: len(asked & _bigrams(sentence)))

    return [best(example) if is_context_row(example) else None for example in examples]


def lead_as_long(examples: Sequence[Example], texts: Sequence[str]) -> Answers:
    """The beginning of the context, row by row as long as a system's answer; context rows only.

    What copying without reading would reach at the length that the system takes. An empty answer has an empty lead.
    """
    pairs = zip(examples, texts, strict=True)
    return [row.input.strip()[: len(text.strip())] if is_context_row(row) else None for row, text in pairs]


def _bigrams(text: str) -> set[tuple[str, str]]:
    return set(itertools.pairwise(normalise(text)))


def oracle_sentence(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The sentence of the context with the best character F1 against the references; context rows only.

    It knows the references: what copying one sentence could reach at best. Of equals the first counts.
    """

    def best(example: Example) -> str:
        return max(sentences(example.input), key=lambda sentence: character_f1(sentence, example.references))

    return [best(example) if is_context_row(example) else None for example in examples]


def is_context_row(example: Example) -> bool:
    """Whether the row is in the group context and has a context."""
    return example.group == "context" and bool(example.input.strip())


def _by_kind(examples: Sequence[Example]) -> dict[tuple[str, str], list[int]]:
    """Row numbers by category and group, each in the rows' order."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, example in enumerate(examples):
        found.setdefault((example.category, example.group), []).append(row)
    return found


FLOORS = {floor.__name__: floor for floor in (echo, shuffled, constant, lead, question_sentence)}
ORACLE = "oracle_sentence"
CEILINGS = {ORACLE: oracle_sentence}
"""Floors and ceilings by name, in report order; called with the rows and a seed."""

CONTEXT_ONLY = ("lead", "question_sentence", ORACLE)
OWN_LEAD = "lead_of_its_own_length"
"""The name of `lead_as_long` beside the floors."""
