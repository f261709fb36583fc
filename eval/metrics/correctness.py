"""Facts that can be checked by machine: numbers, dates, names and katakana words of a text. No torch here.

Overlap cannot tell 17回 from 2019年; these can. A fact is a string in one spelling, so that １２３ and 123, 三百
and 300, 5km and 5,000メートル, or 令和元年7月 and 2019/7 are the same. What the extraction does not know: who did what
(see `eval.metrics.verdict.correct`), words in Latin letters, and dates in English.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from eval.metrics.facts import dates, quantities
from eval.metrics.facts.names import katakana_words, names, names_in
from eval.metrics.facts.numerals import plain_numbers, without_item_numbers

KINDS = ("numbers", "dates", "names", "katakana")


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a text by kind.

    `numbers`: quantities with their unit, as `eval.metrics.facts.quantities` spells them. `dates`: dates and times, as
    `eval.metrics.facts.dates` does. `names`: MeCab's 固有名詞 with their class word. `katakana`: words of two
    characters or more. `ones`: 一つ and 一人 say one where somebody asks for it, and are no facts alone (山の一つ).
    """

    numbers: frozenset[str]
    dates: frozenset[str]
    names: frozenset[str]
    katakana: frozenset[str]
    ones: frozenset[str]

    def of(self, kind: str | None) -> frozenset[str]:
        """The facts of one of `KINDS`, or all together for None."""
        return frozenset().union(*map(self.of, KINDS)) if kind is None else getattr(self, kind)

    @property
    def implied(self) -> frozenset[str]:
        """All facts, and what they say besides: 1981-07-10 says 1981, 1981-07, --07-10 and 10日, too, 17回 says 17."""
        of_dates = (dates.implied_by(date) for date in self.dates)
        of_numbers = (quantities.implied_by(number) for number in self.numbers | self.ones)
        return self.of(None).union(*of_dates, *of_numbers)


@functools.lru_cache(8192)
def facts(text: str) -> Facts:
    """The facts of `text`, after `eval.metrics.text.normalise` and without the numbers of a list's items."""
    said = without_item_numbers(text)
    undated, found_dates = dates.without_dates(plain_numbers(said))
    found_numbers, ones = quantities.quantities(undated)
    return Facts(
        numbers=frozenset(found_numbers),
        dates=frozenset(found_dates),
        names=names(said),
        katakana=katakana_words(said),
        ones=frozenset(ones),
    )


def stated(text: str, wanted: frozenset[str]) -> frozenset[str]:
    """Those of the `wanted` facts that the text states.

    As precisely as wanted or more so: 1981年7月10日 states 1981年. The unit may be absent on one side (17 for 17回,
    1981 for 1981年), but not another. A name also where MeCab divides the text in another way, see `names_in`.
    """
    found = facts(text)
    implied, bare = found.implied | _joined(found.katakana, wanted), found.numbers | found.dates
    return frozenset(
        fact for fact in wanted if fact in implied or quantities.without_unit(fact) & bare or _named(text, fact)
    )


def _joined(found: frozenset[str], wanted: frozenset[str]) -> set[str]:
    """Those of the wanted words that make up one that is found: レオナルド and ダビンチ of レオナルドダビンチ."""
    said = set()
    for word in found - wanted:
        parts = [part for part in wanted if part in word]
        if sum(map(len, parts)) == len(word):
            said.update(parts)
    return said


def _named(text: str, fact: str) -> bool:
    return not fact[0].isascii() and not fact[-1].isascii() and fact in names(fact) and names_in(text, fact)


def facts_recall(answer: str, references: Sequence[str], kind: str | None = None) -> float | None:
    """Share of a reference's facts that the answer states, 0–1; of one of `KINDS`, or of all for None.

    See `stated`. With several references, the best of those that have facts; None when none of them has.
    """
    wanted = [found for reference in references if (found := facts(reference).of(kind))]
    return max((len(stated(answer, facts_)) / len(facts_) for facts_ in wanted), default=None)


def unsupported_facts(answer: str, sources: Iterable[str], kind: str | None = None) -> float | None:
    """Share of the answer's facts that none of the sources (context, question) states, 0–1; lower is better.

    A date that the sources give in two places (1981年に… 7月10日に…) counts as unsupported. None when the answer
    has no facts of the kind.
    """
    found = facts(answer).of(kind)
    supported = frozenset[str]().union(*(stated(source, found) for source in sources))
    return len(found - supported) / len(found) if found else None
