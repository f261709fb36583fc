"""Names and katakana words of a text, and whether another text says them at a word's border. No torch here."""

import functools
import re

from eval.metrics.dates import ERAS
from eval.metrics.lexicon import LEXICON
from eval.metrics.text import Word, normalise, words

NOUN, PROPER = "名詞", "固有名詞"

_KATAKANA_RUN = re.compile("[ァ-ヺー]+(?:[・=][ァ-ヺー]+)*")
_V = str.maketrans({"ヴ": "ブ", "ヷ": "ワ", "ヺ": "オ", "ヲ": "オ"})
_V_SMALL = {"ヴァ": "バ", "ヴィ": "ビ", "ヴェ": "ベ", "ヴォ": "ボ", "ヴュ": "ビュ", "ヴャ": "ビャ"}
_UNIT_BEHIND = re.compile(r"(?<=\d) ?[ァ-ヺー]+|マイナス(?=\d)")

_MAY_BE_ABSENT = frozenset(LEXICON["may_be_absent"].split())
_CLASS = _MAY_BE_ABSENT | frozenset(LEXICON["another_thing"].split())


def katakana_words(text: str) -> frozenset[str]:
    """Katakana words of two characters or more of the normalised text, divided at ・; units of numbers left out.

    In one spelling: a final ー is dropped, ヴァ is バ, and a single syllable is joined to what follows (ダ・ヴィンチ).
    """
    found: set[str] = set()
    for run in _KATAKANA_RUN.findall(_UNIT_BEHIND.sub(" ", normalise(text))):
        held = ""
        for part in re.split("[・=]", run):
            held += part
            if len(held) > 1:
                found.add(_one_spelling(held))
                held = ""
    return frozenset(word for word in found if word)


def _one_spelling(word: str) -> str:
    for spelling, plain in _V_SMALL.items():
        word = word.replace(spelling, plain)
    return word.translate(_V).rstrip("ー")


@functools.lru_cache(4096)
def names(text: str) -> frozenset[str]:
    """MeCab's 固有名詞 of two characters or more, each with the class word behind it (富士山, 京都大学).

    Those all in katakana are katakana words, eras belong to dates.
    """
    found = words(text)
    behind = (*found[1:], Word("", "", ""))
    return frozenset(
        word.surface + (after.surface if after.surface in _CLASS else "")
        for word, after in zip(found, behind, strict=False)
        if (word.pos, word.subpos) == (NOUN, PROPER)
        and len(word.surface) > 1
        and not re.fullmatch("[ァ-ヺー・=]+", word.surface)
        and word.surface not in ERAS
    )


def names_in(text: str, name: str) -> bool:
    """Whether the text says a name of `names`: from the beginning of a word on, and not as part of another thing.

    東京都 does not say 京都, 富士市 not 富士山; the class word may be absent on one side (東京 for 東京都).
    """
    stem, kind = _divided(name)
    spelled, starts = normalise(text), words_at(text)
    at = spelled.find(stem)
    while at >= 0:
        if at in starts:
            behind = spelled[at + len(stem) :]
            if kind and behind.startswith(kind):
                return True
            other = _class_at(text, at + len(stem))
            if not other and (not kind or kind in _MAY_BE_ABSENT):
                return True
            if not kind and other in _MAY_BE_ABSENT:
                return True
        at = spelled.find(stem, at + 1)
    return False


@functools.lru_cache(4096)
def _divided(name: str) -> tuple[str, str]:
    """The name and its class word, "" where it has none."""
    found = words(name)
    if len(found) > 1 and found[-1].surface in _CLASS:
        return normalise(name)[: -len(found[-1].surface)], found[-1].surface
    return normalise(name), ""


@functools.lru_cache(2048)
def words_at(text: str) -> dict[int, str]:
    """Where each word of the normalised text begins → the word."""
    spelled, end, found = normalise(text), 0, {}
    for word in words(text):
        start = spelled.index(word.surface, end)
        end = start + len(word.surface)
        found[start] = word.surface
    return found


def _class_at(text: str, at: int) -> str:
    """The class word that begins there, "" for none."""
    surface = words_at(text).get(at, "")
    return surface if surface in _CLASS else ""
