"""Systems that understand nothing, and one that reads the context as well as a single sentence can. No torch here.

A score means little without them: echoing the question reaches a character F1 above .3 on closed questions.
Each is a list of answers, one a row; None where it has no answer to the row.
"""

import random
import re
import statistics
from collections.abc import Sequence

from eval.metrics.overlap import character_f1
from sft.data.records import CATEGORIES, CONTEXT, Example

CONSTANT = "それは、世界の多くの国で人々に広く知られ、長い歴史の中で重要な役割を果たしてきたものの一つです。"
"""The answer of the constant floor: one sentence of frequent words that answers nothing."""

# The end of a sentence with the brackets that close behind it, or a line break.
_SENTENCE = re.compile(r"[^。！？!?\n]+[。！？!?]*[」』）)]*")

Answers = list[str | None]


def echo(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The question itself."""
    return [example.instruction for example in examples]


def shuffled(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The reference of another row of the category, each used once; None for the only row of a category."""
    answers: Answers = [None] * len(examples)
    for category in CATEGORIES:
        order = [row for row, example in enumerate(examples) if example.category == category]
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
    """The beginning of the context, as long as the category's median reference; context rows only."""
    lengths = {name: [len(e.output) for e in examples if e.category == name] for name in CATEGORIES}
    medians = {category: round(statistics.median(found)) for category, found in lengths.items() if found}
    return [e.input.strip()[: medians[e.category]] if is_context_row(e) else None for e in examples]


def oracle_sentence(examples: Sequence[Example], seed: int = 0) -> Answers:
    """The sentence of the context with the best character F1 against the references; context rows only.

    It knows the references: what copying one sentence could reach at best. Of equals the first counts.
    """

    def best(example: Example) -> str:
        return max(sentences(example.input), key=lambda sentence: character_f1(sentence, example.references))

    return [best(example) if is_context_row(example) else None for example in examples]


def sentences(text: str) -> list[str]:
    """The sentences of a text, divided after 。！？!? and at line breaks; the whole text when it has no other part."""
    found = [stripped for match in _SENTENCE.findall(text) if (stripped := match.strip())]
    return found or [text]


def is_context_row(example: Example) -> bool:
    """Whether the row is of a context category and has a context."""
    return example.category in CONTEXT and bool(example.input.strip())


FLOORS = {floor.__name__: floor for floor in (echo, shuffled, constant, lead)}
ORACLE = "oracle_sentence"
CEILINGS = {ORACLE: oracle_sentence}
"""Floors and ceilings by name, in report order; called with the rows and a seed."""

CONTEXT_ONLY = ("lead", ORACLE)
