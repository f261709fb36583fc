"""How much of an answer comes out of its context. No torch here.

Copying is neither good nor bad by itself: read every value beside that of the reference. Everything compares
texts after `eval.metrics.text.normalise`, and is None for a row without a context or an answer that is empty.
"""

import functools
from typing import NamedTuple

from eval.metrics.correctness import facts, stated
from eval.metrics.facts.names import NOUN, katakana_words
from eval.metrics.facts.numerals import NUMERAL
from eval.metrics.text import normalise, words
from sft.system.shared_spans import SHORTEST, shared_spans


class Extraction(NamedTuple):
    """Coverage (0–1) and density (characters, ≥ 0) of an answer in its context."""

    coverage: float
    density: float


def fragments(answer: str, context: str) -> list[str]:
    """The passages of the normalised answer that are copied from the normalised context, in order.

    A passage has four characters or more; an answer below four characters is copied when all of it is.
    """
    text, source = normalise(answer), normalise(context)
    spans = shared_spans(text, source, min(SHORTEST, len(text))) if text else []
    return [text[start:end] for start, end in spans]


@functools.lru_cache(64)  # coverage and density of a text are asked for one after the other
def extraction(answer: str, context: str) -> Extraction | None:
    """Extractive coverage and density over `fragments`.

    coverage = Σ |f| / |answer|: the share of the answer's characters that stand in copied passages, 0–1.
    density = Σ |f|² / |answer|: the mean length, over the answer's characters, of the copied passage that a
    character stands in (0 where it stands in none); |answer| when all is one copy.
    """
    characters = len(normalise(answer))
    if not characters or not normalise(context):
        return None
    lengths = [len(fragment) for fragment in fragments(answer, context)]
    return Extraction(sum(lengths) / characters, sum(length**2 for length in lengths) / characters)


def noun_support(answer: str, context: str) -> float | None:
    """Share of the answer's different nouns that are nouns of the context, too, 0–1.

    Nouns are MeCab tokens with UniDic's 名詞, numerals left out. None also when the answer has no noun.
    """
    return _share(_nouns(answer), _nouns(context)) if normalise(context) else None


def number_support(answer: str, context: str) -> float | None:
    """Share of the answer's different numbers and dates that the context states, 0–1; None also without any.

    Spellings and precision as in `eval.metrics.correctness`.
    """
    wanted = facts(answer).numbers | facts(answer).dates
    return _share(wanted, stated(context, wanted)) if normalise(context) else None


def katakana_support(answer: str, context: str) -> float | None:
    """Share of the answer's different katakana words that stand in the context, 0–1; None also without any."""
    return _share(katakana_words(answer), katakana_words(context)) if normalise(context) else None


@functools.lru_cache(2048)
def _nouns(text: str) -> frozenset[str]:
    return frozenset(word.surface for word in words(text) if word.pos == NOUN and word.subpos != NUMERAL)


def _share(found: frozenset[str], supported: frozenset[str]) -> float | None:
    return len(found & supported) / len(found) if found else None
