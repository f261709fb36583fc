"""Names and katakana words of a text, and whether another text says them at a word's border. No torch here."""

import functools
import re

from eval.metrics.facts.dates import ERAS
from eval.metrics.facts.lexicon import LEXICON
from eval.metrics.text import Word, normalise, words

NOUN, PROPER = "名詞", "固有名詞"

_KATAKANA_RUN = re.compile("(?:(?<![一-龠])[東西南北新旧]{1,2}(?=[ァ-ヺ]{2}))?[ァ-ヺー]+(?:[・=][ァ-ヺー]+)*")
_V = str.maketrans({"ヴ": "ブ", "ヷ": "ワ", "ヺ": "オ", "ヲ": "オ"})
_V_SMALL = {"ヴァ": "バ", "ヴィ": "ビ", "ヴェ": "ベ", "ヴォ": "ボ", "ヴュ": "ビュ", "ヴャ": "ビャ"}
_UNIT_BEHIND = re.compile(r"(?<=[\d十百千万億兆]) ?(?:平方|立方)?[ァ-ヺー]+|マイナス(?=\d)")

_MAY_BE_ADDED = frozenset(LEXICON["may_be_added"].split())
_MAY_BE_ABSENT = _MAY_BE_ADDED | frozenset(LEXICON["may_be_absent"].split())
CLASS_WORDS = _MAY_BE_ABSENT | frozenset(LEXICON["another_thing"].split())
PART = re.compile("[東西南北新旧]")
"""In front of a name these make another of it: 南アメリカ, 新大阪."""


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

    What makes another of it in front belongs to it, too (新大阪). Those all in katakana are katakana words, eras belong
    to dates.
    """
    found = words(text)
    nobody = Word("", "", "")
    around = zip((nobody, *found), found, (*found[1:], nobody), strict=False)
    return frozenset(
        (before.surface if PART.fullmatch(before.surface) else "")
        + word.surface
        + (after.surface if after.surface in CLASS_WORDS else "")
        for before, word, after in around
        if (word.pos, word.subpos) == (NOUN, PROPER)
        and len(word.surface) > 1
        and not re.fullmatch("[ァ-ヺー・=]+", word.surface)
        and word.surface not in ERAS
    )


def names_in(text: str, name: str) -> bool:
    """Whether the text says a name of `names`: as a word, and not as part of another thing.

    東京都 does not say 京都, 富士市 not 富士山, 大阪城 not 大阪; a class word may be absent (富士), or added where it
    changes nothing (東京都 for 東京).
    """
    stem, kind = _divided(name)
    spelled, starts = normalise(text), words_at(text)
    at = spelled.find(stem)
    while at >= 0:
        end = at + len(stem)
        part = at > 0 and PART.fullmatch(spelled[at - 1]) and at - 1 in starts
        if at in starts and not part and _ends_there(text, end):
            other = _class_at(text, end)
            if (kind and spelled.startswith(kind, end)) or (not other and (not kind or kind in _MAY_BE_ABSENT)):
                return True
            if not kind and other in _MAY_BE_ADDED:
                return True
        at = spelled.find(stem, at + 1)
    return False


def _ends_there(text: str, end: int) -> bool:
    """Whether a word ends there, or one that is no name goes on (MeCab divides 山田太郎氏 in several ways)."""
    starts = words_at(text)
    if end in starts or end >= len(normalise(text)):
        return True
    before = max((start for start in starts if start < end), default=0)
    return starts[before] not in names(text) and end + 1 not in starts


@functools.lru_cache(4096)
def _divided(name: str) -> tuple[str, str]:
    """The name and its class word, "" where it has none."""
    found = words(name)
    if len(found) > 1 and found[-1].surface in CLASS_WORDS:
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
    return surface if surface in CLASS_WORDS else ""
