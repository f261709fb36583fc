"""Right or wrong: a verdict by rules on one answer, strict where overlap and containment are blind. No torch here.

A text that holds the reference may deny it, guess it among others, decline to answer, or give it to another party. The
rules know forms of words, not the world: a synonym that no rule knows counts as wrong.
"""

import itertools
import re
from collections.abc import Sequence

from eval.metrics.correctness import facts, stated
from eval.metrics.facts.names import CLASS_WORDS, NOUN, PART
from eval.metrics.facts.quantities import with_kilograms
from eval.metrics.text import Word, normalise, words
from eval.metrics.verdict.exchange import exchanged, opposed, roles_swapped
from eval.metrics.verdict.guesses import is_list_of_guesses, is_nominal, items
from eval.metrics.verdict.polarity import (
    Said,
    content_word,
    is_bare,
    polarity,
    predicates,
    refuses,
    said,
    says_so,
    without_withdrawn,
)

MANY = 3
"""Facts or words of a reference up to which an answer has to state all of them."""
MOST = 0.75
"""Share of the facts that it has to state where there are more."""
HALF = 0.5
"""Share of the content words that it has to state where there are no facts and more than two words."""

# Names in Latin letters with the marks that are part of them: C++, Node.js, info@example.jp; no units, and no letters
# that stand for a word each (p.m., J.K.ローリング), which are written in many ways.
_LATIN = re.compile(
    r"(?<![\da-z])(?<!\d )(?!(?:[a-z]\.){1,8}[a-z](?![a-z\d]))"
    r"(?P<stem>[a-z][a-z\d]*)(?P<marks>(?:[+#]+|[@._]+[a-z\d]+)*)"
)
_WHEN = re.compile("いつ|何(?:年|月|日|曜|時|世紀)(?!間)|年代")
_WHO_OR_WHERE = re.compile("誰|だれ|どなた|どこ|どの(?:国|県|市|町|人)|何(?:県|市|という人)|何処")
_HOW_MUCH = re.compile(
    "いくつ|いくら|どれ(?:くらい|ぐらい|ほど|だけ)|どの(?:くらい|ぐらい|程度)|何(?:[人個回本枚冊匹頭台割%度歳才円倍階位番点分]|時間|日間|年間|週間"
    "|[かカヶ][所国月]|パーセント|メートル|キロ|グラム|ドル)"
)
_INTERROGATIVE = re.compile("何|誰|だれ|どこ|いつ|どの|どれ|どちら|どう|なぜ|いくつ|いくら|どんな|なに|何故")
_ASKS_YES_OR_NO = re.compile(r"(?:か|の|かい|っけ)[。?？]*$|[?？]$")


def correct(answer: str, references: Sequence[str], question: str = "") -> float:
    """1 when an answer is right by one of the references, else 0.

    It has to state what the reference states and the question does not, in whatever spelling, as so and of the same
    party; and not to refuse, to guess among others or to say the opposite. What it says besides counts for nothing.
    """
    return float(any(is_right(answer, reference, question) for reference in references))


def is_right(answer: str, reference: str, question: str = "") -> bool:
    """Whether the answer is right by one reference."""
    answer, reference = (with_kilograms(text, question) for text in (without_withdrawn(answer), reference))
    if not normalise(answer) or not normalise(reference):
        return False
    if normalise(answer) == normalise(reference):
        return True
    if refuses(reference):
        return refuses(answer, question, reference)
    if refuses(answer, question, reference):
        return False
    by_polarity = _yes_or_no(answer, reference, question)
    if by_polarity is not None:
        return by_polarity
    return _states(answer, reference, question) and not _contradicts(answer, reference, question)


def _yes_or_no(answer: str, reference: str, question: str) -> bool | None:
    """The verdict where yes or no is all that is asked; None elsewhere, or where yes and no agree and more is said."""
    plain = normalise(question)
    asked = bool(_ASKS_YES_OR_NO.search(plain)) and not _INTERROGATIVE.search(plain)
    if not asked and not is_bare(reference):
        return None
    found, wanted = polarity(answer), polarity(reference)
    if is_bare(reference) or is_bare(answer):
        return found == wanted
    shared = {lemma for lemma, _ in predicates(answer)} & {lemma for lemma, _ in predicates(reference)}
    if shared and not said(reference).content:  # いない, ある: nothing but yes or no
        return found == wanted
    if says_so(answer) and said(reference).content <= said(question).content:
        return found == wanted
    return False if shared and found != wanted else None


def _states(answer: str, reference: str, question: str) -> bool:
    if _other_spelling(reference, answer, question) or _other_given_name(reference, answer):
        return False
    wanted, found = said(reference), said(answer)
    # A reference that only denies is stated by an answer that denies the same.
    if roles_swapped(reference, answer) and opposed(wanted, found):
        return wanted.content & _nouns(reference) <= found.content  # 木星は土星より大きい, 土星は木星より小さい
    text, by = (wanted.so, found.so) if wanted.so_words or facts(wanted.so).of(None) else (wanted.not_so, found.not_so)
    asked = _asked(text, question)
    if not asked:
        return _says_words(text, by, question)
    missing = _without_family_names(asked, text, by) - stated(by, asked)
    share = 1 - len(missing) / len(asked)
    if not missing if len(asked) <= MANY else share >= MOST:
        return True
    # MeCab may divide a name in two ways; a number held may be part of another (3% of -3%).
    return missing <= facts(text).names | facts(text).katakana and _holds(by, text)


def _other_spelling(reference: str, answer: str, question: str) -> bool:
    """Whether the answer lacks a name in Latin letters that its marks are part of: C++ is not C, a.jp not a.com.

    One may be longer behind a dot: Amazon.com is Amazon.
    """
    wanted, found, known = (
        {one.group(): one for one in _LATIN.finditer(normalise(text))} for text in (reference, answer, question)
    )
    others = {one["stem"] for one in found.values() if one["marks"][:1] in ("+", "#")}
    return any(not one.isalnum() or one in others for one in wanted.keys() - found.keys() - known.keys())


def _other_given_name(reference: str, answer: str) -> bool:
    """Whether a family name stands with another given name, where the reference has one of a single kanji (宮崎駿)."""
    wanted, found = _full_names(reference), _full_names(answer)
    return any(
        len(given) == 1 and (family, given) not in found and any(one == family for one, _ in found)
        for family, given in wanted
    )


def _full_names(text: str) -> set[tuple[str, str]]:
    """Family and given names that stand together."""
    people = ((one, two) for one, two in itertools.pairwise(words(text)) if one.detail == two.detail == "人名")
    return {(family.surface, given.surface) for family, given in people}


def _nouns(text: str) -> frozenset[str]:
    return frozenset(known for word in words(text) if word.pos == NOUN and (known := content_word(word)))


def _asked(reference: str, question: str) -> frozenset[str]:
    """The facts of the reference that the question asks for: of its kind, and not in it."""
    found = facts(reference)
    kinds: tuple[str, ...] = ()
    if _WHEN.search(question):
        kinds = ("dates", "numbers") if not found.dates else ("dates",)
    elif _WHO_OR_WHERE.search(question):
        kinds = ("names", "katakana")
    elif _HOW_MUCH.search(question):
        kinds = ("numbers", "dates") if not found.numbers else ("numbers",)
    every = found.of(None)
    of_kind = frozenset().union(*(found.of(kind) for kind in kinds))
    known = stated(question, every) if question else frozenset()
    return (of_kind - known) or (every - known)


def _without_family_names(wanted: frozenset[str], reference: str, answer: str) -> frozenset[str]:
    """家康 is 徳川家康 where the answer gives him no other family name."""
    found, said_ = words(reference), words(answer)
    optional = set()
    for family, given in itertools.pairwise(found):
        if family.detail == given.detail == "人名" and {family.surface, given.surface} <= wanted:
            others = [one for one, two in itertools.pairwise(said_) if two.surface == given.surface]
            if given.surface in {word.surface for word in said_} and not any(one.detail == "人名" for one in others):
                optional.add(family.surface)
    return wanted - optional


def _says_words(reference: str, answer: str, question: str) -> bool:
    """Whether the answer says the content words of the reference: all where it is a name or a list, else most."""
    if _holds(answer, reference):
        return True
    every = said(reference).content
    wanted = (every - said(question).content) or every
    share = len(wanted & said(answer).content) / len(wanted) if wanted else 0.0
    return share == 1 if len(wanted) <= 2 or is_nominal(reference) or len(items(reference)) > 1 else share >= HALF


def _holds(text: str, part: str) -> bool:
    """Whether the text holds the words of the part one after another, in any spelling, and not in a longer name."""
    found, wanted = words(text), [word.lemma for word in words(part)]
    spans = range(len(found) - len(wanted) + 1) if wanted else ()
    return any(
        [word.lemma for word in found[at : at + len(wanted)]] == wanted and _stands_alone(found, at, at + len(wanted))
        for at in spans
    )


def _stands_alone(found: Sequence[Word], start: int, end: int) -> bool:
    """Whether words `start` to `end` are no part of a longer katakana word, nor of 新大阪 or 大阪城."""
    before, behind = found[start - 1] if start else None, found[end] if end < len(found) else None
    if before and (PART.fullmatch(before.surface) or (_is_katakana(before) and _is_katakana(found[start]))):
        return False
    return not behind or not (behind.surface in CLASS_WORDS or (_is_katakana(behind) and _is_katakana(found[end - 1])))


def _is_katakana(word: Word) -> bool:
    return bool(re.fullmatch("[ァ-ヺー]+", word.surface))


def _contradicts(answer: str, reference: str, question: str) -> bool:
    wanted, found = said(reference), said(answer)
    of_reference = items(reference)
    turned_round = opposed(wanted, found) and roles_swapped(reference, answer)
    return (
        _denies(answer, reference)
        or (not turned_round and (_denied(wanted, found) or opposed(wanted, found)))
        or bool((said(question).so_words - wanted.not_so_words) & (found.not_so_words - found.so_words))
        or exchanged(reference, answer)
        or is_list_of_guesses(
            answer, lambda part: any(_states(part, item, question) for item in of_reference), reference
        )
    )


def _denies(answer: str, reference: str) -> bool:
    """Whether a predicate of both is affirmed in one and denied in the other."""
    found, wanted = predicates(answer), predicates(reference)
    other = {"yes": "no", "no": "yes"}
    return any((lemma, other[side]) in found and (lemma, side) not in found for lemma, side in wanted)


def _denied(wanted: Said, found: Said) -> bool:
    """Whether a word of both is so in one and not so in the other."""
    so = wanted.so_words & (found.not_so_words - found.so_words) - wanted.not_so_words
    not_so = wanted.not_so_words & (found.so_words - found.not_so_words) - wanted.so_words
    return bool(so or not_so)
