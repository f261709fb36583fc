"""What a text says is so, what it says is not so, and whether it refuses to answer. No torch here."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from eval.metrics.facts.lexicon import LEXICON
from eval.metrics.facts.names import NOUN, PROPER
from eval.metrics.facts.numerals import NUMERAL
from eval.metrics.text import Word, normalise, sentences, words

VERB, ADJECTIVE, ADJECTIVAL_NOUN, SUFFIX, PREFIX = "動詞", "形容詞", "形状詞", "接尾辞", "接頭辞"
_EMPTY = frozenset(LEXICON["empty_words"].split())
_NO_DENIALS = [(re.compile(pattern), plain) for pattern, plain in LEXICON["no_denials"].items()]
_FALSE = frozenset(LEXICON["false_words"].split())
_TRUE = frozenset(LEXICON["true_words"].split())
_EXCLUDED = frozenset(LEXICON["excluded_by"].split())
_SAME_ALONE = frozenset(LEXICON["same_with"].split())
_SAME_WITH = re.compile(f"(?<=.)[{LEXICON['same_with'].replace(' ', '')}]$")
_THERE_IS = frozenset(LEXICON["there_is"].split())
_DENYING: dict[str, str] = LEXICON["denying_words"]
_NOT = frozenset(("ない", "ず", "無い", "無し", "まい"))
_NOT_BEFORE = frozenset(("不", "非", "未", "無", "反"))
PASSIVE = frozenset(("られる", "れる"))
_LIGHT_VERBS_THAT_COUNT = frozenset(("行く", "来る", "出来る"))
_REFUSAL = re.compile(LEXICON["refusal"])
_WITHDRAWAL = re.compile(rf"(?<=[。！？!?\n])\s{{0,3}}(?:{LEXICON['withdrawal'].strip()})")
_YES = re.compile(r"(?:はい|ええ|うん|そうです|その通り|yes|もちろん)(?![ァ-ヺ一-龠])")
_NO = re.compile(r"(?:いいえ|いえ|いや|ううん|違います|違う|ちがいます|no)(?![ァ-ヺ一-龠a-z])")
_TOPIC = re.compile("は|が|も|について|に関して")

Polarity = Literal["yes", "no"]


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """A text divided: what it says is so, and what it says is not.

    The texts are without the nouns of the other side, the words are content words by `content_word`.
    """

    so: str
    not_so: str
    so_words: frozenset[str]
    not_so_words: frozenset[str]

    @property
    def content(self) -> frozenset[str]:
        """All content words."""
        return self.so_words | self.not_so_words


def content_word(word: Word) -> str | None:
    """The word if it has a content of its own: UniDic's lemma, so that ねこ and 猫 are one; names as they are spelt."""
    if word.lemma in _EMPTY or word.lemma in _SAME_ALONE or word.subpos == NUMERAL or word.detail == "助数詞":
        return None
    if word.pos == VERB and word.subpos == "非自立可能" and word.lemma not in _LIGHT_VERBS_THAT_COUNT:
        return None
    if word.pos == ADJECTIVE and word.lemma in _NOT:
        return None
    if word.pos not in (NOUN, VERB, ADJECTIVE, ADJECTIVAL_NOUN):
        return None
    return word.surface if word.subpos == PROPER else _SAME_WITH.sub("", word.lemma)


@functools.lru_cache(4096)
def said(text: str) -> Said:
    """What a text says is so and what not: negated verbs and adjectives, AではなくB, A以外, Aというのは誤り, 不A."""
    found = _words_said(text)
    denied = [False] * len(found)
    for start, end in _sentence_spans(found):
        for at in _denied_places(found[start:end]):
            denied[start + at] = not denied[start + at]
    so, not_so = ([one for one, out in zip(found, denied, strict=True) if out is side] for side in (False, True))
    return Said(_joined(so), _joined(not_so), *map(_content, (so, not_so)))


def without_idioms(text: str) -> str:
    """`normalise(text)` with the turns of phrase put plainly that have a negative and deny nothing (だけでなく)."""
    plain = normalise(text)
    for pattern, instead in _NO_DENIALS:
        plain = pattern.sub(instead, plain)
    return plain


def without_withdrawn(text: str) -> str:
    """The text behind the last place where it takes back what it said: 東京です。失礼しました、大阪です。 says 大阪."""
    *_, behind = _WITHDRAWAL.split(text)
    return behind if _content(words(behind)) else text


def refuses(text: str, *about: str) -> bool:
    """Whether the text declines to answer: 分かりません, 記載がありません.

    A sentence about something that none of the texts `about` names (東京です。人口は分かりません) is no refusal, if
    there is another one.
    """
    found = sentences(normalise(text))
    known = _content(itertools.chain.from_iterable(map(words, about)))
    return any(_REFUSAL.search(one) and not (len(found) > 1 and _is_aside(one, known)) for one in found)


def _is_aside(sentence: str, known: frozenset[str]) -> bool:
    topic = _TOPIC.split(sentence, maxsplit=1)
    subjects = _content(words(topic[0])) if len(topic) > 1 else frozenset()
    return bool(subjects) and not subjects & known


def polarity(text: str) -> Polarity | None:
    """Yes or no: as the text begins, or as the predicate of its first sentence is; None where it has none."""
    plain = without_idioms(text)
    if _YES.match(plain):
        return "yes"
    if _NO.match(plain):
        return "no"
    found = predicates(text)
    return found[0][1] if found else None


@functools.lru_cache(4096)
def predicates(text: str) -> tuple[tuple[str, Polarity], ...]:
    """The predicate of each sentence as a lemma, and whether it is affirmed (必要です, 不要です: 必要, yes and no)."""
    found = _words_said(text)
    known = (_predicate(found[start:end]) for start, end in _sentence_spans(found))
    return tuple(one for one in known if one)


def _words_said(text: str) -> tuple[Word, ...]:
    """The words of a text without idioms; 使うことができる as 使える, whose lemma is 使う."""
    found = words(without_idioms(text))
    can = {
        place
        for at in range(len(found) - 2)
        if (found[at].lemma, found[at + 2].lemma) == ("事", "出来る") and found[at + 1].surface in ("が", "は", "も")
        for place in range(at, at + 3)
    }
    return tuple(word for at, word in enumerate(found) if at not in can)


def _predicate(sentence: Sequence[Word]) -> tuple[str, Polarity] | None:
    places = [at for at in range(len(sentence)) if content_word(sentence[at]) or _exists(sentence, at)]
    if not places:  # ない: there is none
        return ("有る", "no") if any(word.lemma in _NOT for word in sentence) else None
    at = places[-1]
    word = sentence[at]
    negatives = sum(one.lemma in _NOT for one in sentence[at:]) + (word.lemma in _DENYING)
    negatives += at > 0 and sentence[at - 1].pos == PREFIX and sentence[at - 1].lemma in _NOT_BEFORE
    if _is_false(sentence, at) and len(places) > 1:  # 東京だというのは誤り
        word, negatives = sentence[places[-2]], negatives + 1
    if word.lemma in _TRUE and negatives % 2 and len(places) > 1:  # 東京だというのは正しくない
        word = sentence[places[-2]]
    lemma = content_word(word) or word.lemma
    if lemma in _THERE_IS and any(one.lemma in PASSIVE for one in sentence[at + 1 : at + 3]):
        lemma = "有る"
    return _DENYING.get(lemma, lemma), "no" if negatives % 2 else "yes"


def _exists(sentence: Sequence[Word], at: int) -> bool:
    """Whether 有る or 居る stands there by itself, not in ではありません or 食べている."""
    before = "".join(word.surface for word in sentence[max(0, at - 2) : at])
    return sentence[at].lemma in ("有る", "居る") and not before.endswith(
        ("で", "では", "でも", "て", "ては", "ても", "じゃ")
    )


def says_so(text: str) -> bool:
    """Whether the text begins with a yes or no."""
    plain = without_idioms(text)
    return bool(_YES.match(plain) or _NO.match(plain))


def is_bare(text: str) -> bool:
    """Whether the text is a yes or no and nothing else."""
    plain = normalise(text)
    found = _YES.match(plain) or _NO.match(plain)
    return bool(found) and not _content(words(plain[found.end() :])) if found else False


def _sentence_spans(found: Sequence[Word]) -> list[tuple[int, int]]:
    ends = [at + 1 for at, word in enumerate(found) if word.surface in "。!?！？"] + [len(found)]
    return [(start, end) for start, end in itertools.pairwise([0, *ends]) if start < end]


def _denied_places(found: Sequence[Word]) -> list[int]:
    """Where the words stand that one sentence denies; twice where it does so twice."""
    places: list[int] = []
    for at, word in enumerate(found):
        if word.lemma in _NOT or word.lemma in _EXCLUDED or _is_compared(found, at):
            places += _chunk_before(found, at)
        elif word.lemma in _DENYING:
            places.append(at)
        elif word.pos == PREFIX and word.lemma in _NOT_BEFORE and at + 1 < len(found):
            places.append(at + 1)
    last = next((at for at in range(len(found) - 1, -1, -1) if _counts(found[at])), None)
    denied = last is not None and any(word.lemma in _NOT for word in found[last:])
    if last is not None and (found[last].lemma in _TRUE if denied else _is_false(found, last)):
        places += [at for at in range(last) if _counts(found[at]) or found[at].subpos == NUMERAL]
    return places


def _is_false(found: Sequence[Word], at: int) -> bool:
    """Whether the word there says that what stands before it is not so: 東京とは違う, not 色が違う."""
    return found[at].lemma in _FALSE and (found[at].pos == NOUN or (at > 0 and found[at - 1].surface == "は"))


def _is_compared(found: Sequence[Word], at: int) -> bool:
    """富士山より, 富士山の次に: what stands in front is not what is spoken of. 2001年より is since then."""
    ahead = [word.surface for word in found[at : at + 3]]
    if ahead == ["の", "次", "に"]:
        return True
    than = ahead[:1] == ["より"] and found[at].pos == "助詞"
    return than and not any(found[place].subpos == NUMERAL for place in _chunk_before(found, at))


def _chunk_before(found: Sequence[Word], at: int) -> list[int]:
    """The content word in front of place `at`, with the whole compound where it is a noun."""
    end = at - 1
    while end >= 0 and not _counts(found[end]):
        end -= 1
    if end < 0:
        return []
    start = end
    if found[end].pos in (NOUN, SUFFIX):
        while start > 0 and found[start - 1].pos in (NOUN, SUFFIX, PREFIX):
            start -= 1
    return list(range(start, end + 1))


def _counts(word: Word) -> bool:
    return content_word(word) is not None or word.subpos == NUMERAL or word.pos == SUFFIX


def _joined(found: Iterable[Word]) -> str:
    return "".join(word.surface for word in found)


def _content(found: Iterable[Word]) -> frozenset[str]:
    known = (content_word(word) for word in found)
    return frozenset(_DENYING.get(word, word) for word in known if word)
