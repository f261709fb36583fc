"""Text made comparable: normalised and cut into tokens. No torch here."""

import functools
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import fugashi
import unidic_lite

NORMALISATION = "nfkc+lowercase+whitespace-to-one-space+trailing-。-dropped"
"""What `normalise` does, for the signatures of the metrics."""

TOKENIZER = "mecab-surface"
"""What `tokens` returns, for the signatures of the metrics."""

# MeCab reads C strings: a NUL would silently end the text there, and a lone surrogate cannot be encoded.
_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

PIECE = 8192
"""Most characters that are analysed at once."""

# Texts repeat: a context is read for every system, a reference for every floor. The sizes bound memory.
_TEXTS_KEPT, _ANALYSES_KEPT = 4096, 2048


class Word(NamedTuple):
    """A MeCab token: its surface form and the first two levels of UniDic's part of speech (名詞, 固有名詞)."""

    surface: str
    pos: str
    subpos: str


@functools.lru_cache(_TEXTS_KEPT)
def normalise(text: str) -> str:
    """The form in which two texts are compared; every text metric uses it.

    In this order: control characters and lone surrogates become spaces; NFKC (full-width letters and digits
    become half-width, half-width katakana full-width, U+3000 a space, `…` three dots); lower case; runs of
    whitespace, line breaks included, become one space and none stays at the ends; `。` at the end is
    dropped. All other punctuation stays.

    Lower case, whitespace and the final `。` are the rules of JGLUE's official JSQuAD evaluation
    (https://github.com/yahoojapan/JGLUE, the patch to transformers' squad_metrics.py). NFKC is added, and
    whitespace is stripped before `。` instead of after it, so that a final line break makes no difference.
    """
    usable = _UNUSABLE.sub(" ", text)
    lowered = unicodedata.normalize("NFKC", usable).lower()
    return " ".join(lowered.split()).rstrip("。 ")


def tokens(text: str) -> list[str]:
    """Surface forms of the MeCab tokens of `normalise(text)`, punctuation included, whitespace left out."""
    return [word.surface for word in words(text)]


@functools.lru_cache(_ANALYSES_KEPT)
def words(text: str) -> tuple[Word, ...]:
    """MeCab tokens of `normalise(text)` with their parts of speech, punctuation included, whitespace left out."""
    nodes = itertools.chain.from_iterable(map(_tagger(), _pieces(normalise(text))))
    return tuple(Word(node.surface, *map(sys.intern, node.feature[:2])) for node in nodes)


def _pieces(text: str) -> Iterator[str]:
    """The text, cut after sentences and words where it is longer than MeCab bears.

    Its time grows with the square of a run of equal characters, and 200,000 of them end the process.
    """
    start = 0
    while start + PIECE < len(text):
        end = max(text.rfind(mark, start, start + PIECE) for mark in "。 、") + 1
        yield text[start : end if end > start else start + PIECE]
        start = end if end > start else start + PIECE
    yield text[start:]


@functools.cache
def _tagger() -> fugashi.GenericTagger:
    # The dictionary is named because fugashi would prefer another one that happens to be installed.
    return fugashi.GenericTagger(f'-r "{os.devnull}" -d "{unidic_lite.DICDIR}"')
