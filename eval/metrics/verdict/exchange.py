"""Whether two texts say the same of exchanged parties: who did what, and which number is whose. No torch here."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from eval.metrics.facts.lexicon import LEXICON
from eval.metrics.facts.names import NOUN, PROPER
from eval.metrics.facts.numerals import NUMERAL, plain_numbers
from eval.metrics.text import Word, words
from eval.metrics.verdict.polarity import PASSIVE, SUFFIX, Said, predicates, without_idioms

_CASES = {"は": "が", "も": "が", "へ": "に"} | {
    case: case for case in ("が", "を", "に", "から", "まで", "より", "の")
}
_BY_PASSIVE = {"が": "を", "に": "が"}
_OPPOSITES = [tuple(pair.split()) for pair in LEXICON["opposites"]]
_CLAUSE = re.compile(r"[、。,\n]|(?<=[人個回円位年日本枚匹歳%])で(?!は|あ|す|し)")


def exchanged(reference: str, answer: str) -> bool:
    """Whether the answer gives one party the place or the number that another has in the reference.

    AがBを追う and BがAを追う, 男性3人、女性5人 and 男性5人、女性3人; not AがBを追う and BがAに追われる, nor
    AがBに勝つ and BがAに負ける.
    """
    return _belongings_exchanged(reference, answer) or _roles_exchanged(reference, answer)


def opposed(reference: Said, answer: Said) -> bool:
    """Whether the answer says the opposite of a word of the reference (増える, 減る), and does not say that word.

    Where the roles are exchanged as well, the two are one (勝つ and 負ける).
    """
    wanted, found = spellings(reference.so), spellings(answer.so)
    both = (wanted & found) | spellings(reference.not_so) | spellings(answer.not_so)
    return any(
        one in wanted - both and other in found - both
        for pair in _OPPOSITES
        for one, other in (pair, pair[::-1])
        if not {one, other} & both
    )


def spellings(text: str) -> frozenset[str]:
    """The words of a text as they stand there and as lemmas, suffixes too (3年後)."""
    return frozenset(spelling for word in words(text) for spelling in (word.surface, word.lemma))


def roles_swapped(reference: str, answer: str) -> bool:
    """Whether two nouns have each other's case, whatever the predicates are."""
    first, second = roles(reference), roles(answer)
    shared = [noun for noun in first if noun in second and first[noun] != second[noun]]
    return any(
        first[one] == second[other] and first[other] == second[one]
        for one in shared
        for other in shared
        if one != other
    )


def _roles_exchanged(reference: str, answer: str) -> bool:
    said_of_both = {lemma for lemma, _ in predicates(reference)} & {lemma for lemma, _ in predicates(answer)}
    return bool(said_of_both) and roles_swapped(reference, answer)


@functools.lru_cache(2048)
def roles(text: str) -> Mapping[str, str]:
    """Noun → its case in the text (が, を, に, から, まで, より, の); は and も count as が, passives are turned round.

    Nouns with several cases are left out.
    """
    found = words(without_idioms(text))
    cases: dict[str, set[str]] = {}
    passive = any(word.lemma in PASSIVE and word.pos == "助動詞" for word in found)
    for at, word in enumerate(found):
        case = _CASES.get(word.surface) if word.pos == "助詞" else None
        if case and at and found[at - 1].pos in (NOUN, SUFFIX):
            noun = _compound(found, at)
            cases.setdefault(noun, set()).add(_BY_PASSIVE.get(case, case) if passive else case)
    return {noun: next(iter(case)) for noun, case in cases.items() if len(case) == 1}


def _compound(found: Sequence[Word], end: int) -> str:
    start = end
    while start > 0 and found[start - 1].pos in (NOUN, SUFFIX, "接頭辞"):
        start -= 1
    return "".join(word.surface if word.subpos == PROPER else word.lemma for word in found[start:end])


def _belongings_exchanged(reference: str, answer: str) -> bool:
    """Whether the answer puts together what the reference has apart: 男性は5人 of 男性は3人、女性は5人."""
    together, found = clauses(reference), clauses(answer)
    home: dict[str, set[int]] = {}
    for number, words_ in enumerate(together):
        for word in words_:
            home.setdefault(word, set()).add(number)
    for words_ in found:
        homes = [home[word] for word in words_ if len(home.get(word, ())) == 1]
        if homes and not set.intersection(*homes) and len(together) > 1 and len(found) > 1:
            return True
    return False


@functools.lru_cache(2048)
def clauses(text: str) -> tuple[frozenset[str], ...]:
    """The content words, names and numbers of each clause of a text."""
    parts = (part for part in _CLAUSE.split(plain_numbers(text)) if part.strip())
    return tuple(frozenset(_words_and_numbers(part)) for part in parts)


def _words_and_numbers(clause: str) -> Iterator[str]:
    compound: list[str] = []
    for word in (*words(clause), Word("", "", "")):
        if word.pos in (NOUN, SUFFIX, "接頭辞") and word.subpos != NUMERAL and word.detail != "助数詞":
            compound.append(word.surface if word.subpos == PROPER else word.lemma)
        elif compound:
            yield "".join(compound)
            compound = []
    yield from re.findall(r"\d+(?:\.\d+)?", clause)
