"""How an answer behaves, whatever it says: length, end, repetition, and what its text is made of. No torch here.

A repetition penalty that is too high starves an answer of particles and punctuation, because they recur;
one that is too low lets it repeat. Both show beside the values of the references, which are measured alike.
"""

import unicodedata

from eval.metrics.text import tokens, words

PARTICLE = "助詞"


def length_ratio(answer: str, reference: str) -> float | None:
    """Characters of the answer / characters of the reference, whitespace at the ends left out, ≥ 0.

    1 is as long as the reference, an empty answer 0. None when the reference is empty.
    """
    characters = len(reference.strip())
    return len(answer.strip()) / characters if characters else None


def ended(finish_reason: str) -> float | None:
    """1 when the answer ended with the end-of-text token, 0 when it was cut, wherever, or failed.

    None when it is one of given choices.
    """
    return None if finish_reason == "chosen" else float(finish_reason == "eos")


def ran_on(finish_reason: str) -> float | None:
    """1 when the model went on with a heading of the prompt's template, where its answer was cut; else 0.

    None when it is one of given choices.
    """
    return None if finish_reason == "chosen" else float(finish_reason == "heading")


def rep_4(text: str) -> float | None:
    """Share of repeated 4-grams of MeCab tokens, 0–1: 1 − different 4-grams / 4-grams.

    0 when no 4-gram comes twice, towards 1 in a loop. None below four tokens. seq-rep-4 of Welleck et al. 2020
    (arXiv 1908.04319).
    """
    distinct = _distinct(text, 4)
    return None if distinct is None else 1 - distinct


def distinct_2(text: str) -> float | None:
    """Different bigrams of MeCab tokens / bigrams, 0–1. None below two tokens.

    Per text, so that it does not sink with the number of texts (Li et al. 2016, N16-1014, pool them).
    """
    return _distinct(text, 2)


def particle_share(text: str) -> float | None:
    """Particles (UniDic 助詞) among the MeCab tokens, 0–1. None for an empty text."""
    found = words(text)
    return sum(word.pos == PARTICLE for word in found) / len(found) if found else None


def punctuation_share(text: str) -> float | None:
    """Punctuation (Unicode categories P*) among the characters that are not whitespace, 0–1; the text as it is.

    None for an empty text.
    """
    characters = "".join(text.split())
    if not characters:
        return None
    return sum(unicodedata.category(character).startswith("P") for character in characters) / len(characters)


def _distinct(text: str, order: int) -> float | None:
    surfaces = tokens(text)
    grams = list(zip(*(surfaces[start:] for start in range(order)), strict=False))
    return len(set(grams)) / len(grams) if grams else None
