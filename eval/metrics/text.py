"""Text made comparable: normalised and cut into tokens. No torch here."""

import functools
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import fugashi
import unidic_lite

NORMALISATION = "nfkc+lowercase+variants-folded+whitespace-to-one-space+trailing-。-dropped"
"""What `normalise` does, for the signatures of the metrics."""

TOKENIZER = "mecab-surface"
"""What `tokens` returns, for the signatures of the metrics."""

# MeCab reads C strings: a NUL would silently end the text there, and a lone surrogate cannot be encoded.
_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# What is drawn nowhere: zero-width characters, byte order marks, soft hyphens, variation selectors.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]")
# One character to a reader, and two to NFKC: the wave dash of JIS and of Windows, minus signs and hyphens, and kanji
# of names that encodings tell apart.
_ONE = str.maketrans({"〜": "~", "−": "-", "‐": "-", "‑": "-", "髙": "高", "﨑": "崎", "濵": "濱", "𠮷": "吉"})
_COUNTED_KE = re.compile("(?<=[一-龠々\\d])ケ(?=[一-龠])")
_FINAL_STOP = re.compile(r"(?:[。\s]|(?<=[^\x00-\x7f])\.)+$")

PIECE = 8192
"""Most characters that are analysed at once."""

# Texts repeat: a context is read for every system, a reference for every floor. The sizes bound memory.
_TEXTS_KEPT, _ANALYSES_KEPT = 4096, 2048


class Word(NamedTuple):
    """A MeCab token: its surface form, three levels of UniDic's part of speech (名詞, 固有名詞, 地名) and its lemma.

    The lemma is UniDic's 語彙素, one for all spellings (ねこ, ネコ and 猫 are 猫); names have their reading there
    (トウキョウ). It is the surface where the dictionary does not know the word.
    """

    surface: str
    pos: str
    subpos: str
    detail: str = "*"
    lemma: str = ""


@functools.lru_cache(_TEXTS_KEPT)
def normalise(text: str) -> str:
    """The form in which two texts are compared; every text metric uses it.

    In this order: control characters and lone surrogates become spaces, invisible characters (U+200B, U+FEFF,
    variation selectors) go; NFKC (full-width letters and digits become half-width, half-width katakana full-width,
    U+3000 a space, `…` three dots); lower case; 〜 becomes ~ as ～ does, − and ‐ become -, ケ between kanji ヶ
    (関ヶ原), 髙 高; runs of whitespace, line breaks included, become one space and none stays at the ends; `。` at
    the end is dropped, and so is `．` behind Japanese. All other punctuation stays.

    Lower case, whitespace and the final `。` are the rules of JGLUE's official JSQuAD evaluation
    (https://github.com/yahoojapan/JGLUE, the patch to transformers' squad_metrics.py). The rest is added, and
    whitespace is stripped before `。` instead of after it, so that a final line break makes no difference.
    """
    usable = _INVISIBLE.sub("", _UNUSABLE.sub(" ", text))
    lowered = unicodedata.normalize("NFKC", usable).lower().translate(_ONE)
    return _FINAL_STOP.sub("", " ".join(_COUNTED_KE.sub("ヶ", lowered).split()))


def tokens(text: str) -> list[str]:
    """Surface forms of the MeCab tokens of `normalise(text)`, punctuation included, whitespace left out."""
    return [word.surface for word in words(text)]


def surfaces(text: str) -> list[str]:
    """Surface forms of the MeCab tokens of `text` as it is, for metrics with a normalisation of their own."""
    usable = _UNUSABLE.sub(" ", text)
    return [node.surface for node in itertools.chain.from_iterable(map(_tagger(), _pieces(usable)))]


@functools.lru_cache(_ANALYSES_KEPT)
def words(text: str) -> tuple[Word, ...]:
    """MeCab tokens of `normalise(text)` with their parts of speech, punctuation included, whitespace left out."""
    nodes = itertools.chain.from_iterable(map(_tagger(), _pieces(normalise(text))))
    return tuple(_word(node.surface, node.feature) for node in nodes)


def _word(surface: str, feature: Sequence[str]) -> Word:
    # 円-助数詞 and ネコ-cat: what follows the dash tells homographs and loan words apart.
    lemma = feature[7].partition("-")[0] if len(feature) > 7 else ""
    pos, subpos, detail = map(sys.intern, feature[:3])
    return Word(surface, pos, subpos, detail, sys.intern(lemma or surface))


# The end of a sentence with the brackets that close behind it. ! and ? between Latin letters are part of a name
# (Yahoo! JAPAN); a full-width point ends a sentence only behind Japanese.
_END = re.compile(
    r"(?:[。！？]|(?<![A-Za-z])[!?]|[!?](?! ?[A-Za-z一-龠ァ-ヺ])|(?<=[ぁ-んァ-ヺー一-龠」）])．)+[」』）)]*"
)
# What goes on: 「…？」と聞いた, モーニング娘。は歌う.
_QUOTED = re.compile("[」』）)]$")
_AFTER_QUOTE = re.compile("と|って|など|[はがをにのも、]")
_AFTER_NAME = re.compile("[はがをにのも](?=[、一-龠ァ-ヺ0-9A-Za-z])")


def sentences(text: str) -> list[str]:
    """The sentences of a text, divided after 。！？!?． and at line breaks; the whole text when it has no other part.

    A quotation that the sentence goes on after (「本当？」と聞いた。) does not end it, nor does a name's own mark.
    """
    found = []
    for line in text.split("\n"):
        start = 0
        for end in _END.finditer(line):
            goes_on = _AFTER_QUOTE if _QUOTED.search(end.group()) else _AFTER_NAME
            if goes_on.match(line, end.end()):
                continue
            found.append(line[start : end.end()])
            start = end.end()
        found.append(line[start:])
    said = [sentence.strip() for sentence in found if sentence.strip(" \t\r　。！？!?．」』）)")]
    return said or [text]


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
