"""Facts that can be checked by machine: numbers, dates, names and katakana words of a text. No torch here.

Overlap cannot tell 17回 from 2019年; these can. A fact is a string in one spelling, so that １２３ and 123, 三百
and 300, or 令和元年7月 and 2019/7 are the same. What the extraction does not know: who did what, words in
Latin letters, dates in English, and numbers inside words (一番, 一人).
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from eval.metrics.text import normalise, words

KINDS = ("numbers", "dates", "names", "katakana")

NUMERAL, NOUN, PROPER = "数詞", "名詞", "固有名詞"
_NUMERAL_WORDS = ("二人",)  # one token to MeCab; 一人 is left out, because ～の一人 says "one of"
_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_SMALL = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10**4, "億": 10**8, "兆": 10**12, "京": 10**16}
_KANJI = re.compile("[〇零一二三四五六七八九十百千万億兆京]")
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?"
_RUN = re.compile(f"(?:{_NUMBER}|[十百千万億兆京])+")
_PART = re.compile(f"{_NUMBER}|[十百千万億兆京]")
_PLAIN = re.compile(r"\d+(?:\.\d+)?")

_ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018}
_ERA_YEAR = re.compile(f"({'|'.join(_ERAS)}) ?(元|\\d{{1,2}}) ?年")
_SAME_YEAR_TWICE = re.compile(r"(\d{4}) ?年? ?\( ?\1 ?年? ?\)( ?年)?")
_YEAR_RANGE = re.compile(r"(?<!\d)(\d{4}) ?[-~〜–―] ?(?=\d{4} ?年)")
_MONTH, _DAY = "(1[0-2]|0?[1-9])", "(3[01]|[12][0-9]|0?[1-9])"
_DECADE = re.compile(r"(?<!\d)(\d{3,4}) ?年代")
_FROM_YEAR = re.compile(rf"(?<!\d)(\d{{3,4}}) ?年(?![間前])(?: ?{_MONTH} ?月(?: ?{_DAY} ?日)?)?")
_FROM_MONTH = re.compile(rf"(?<!\d){_MONTH} ?月(?: ?{_DAY} ?日)?")
_SEPARATED = re.compile(rf"(?<!\d)(\d{{4}})([/.-]){_MONTH}\2{_DAY}(?!\d)")
_YEAR_SLASH_MONTH = re.compile(rf"(?<!\d)(\d{{4}})/{_MONTH}(?![\d/])")
_ISO = re.compile(r"(\d+s?|-)(-\d\d)?(-\d\d)?")  # as `Facts` holds it

_KATAKANA = re.compile("[ァ-ヺー]{2,}")


class Facts(NamedTuple):
    """The facts of a text by kind.

    `numbers`: decimal digits without separators, trailing zeros or units. `dates`: 1981, 1981-07, 1981-07-10,
    --07, --07-10 (ISO 8601; years in the western count) and 1980s. `names`: MeCab's 固有名詞 of two characters
    or more that are not all katakana. `katakana`: words of two characters or more, divided at ・, a final ー
    dropped because its spelling varies.
    """

    numbers: frozenset[str]
    dates: frozenset[str]
    names: frozenset[str]
    katakana: frozenset[str]

    def of(self, kind: str | None) -> frozenset[str]:
        """The facts of one of `KINDS`, or all together for None."""
        return frozenset().union(*self) if kind is None else getattr(self, kind)

    @property
    def implied(self) -> frozenset[str]:
        """All facts, and what a date says besides: 1981-07-10 says 1981, 1981-07, --07-10 and --07, too."""
        return self.of(None) | {part for date in self.dates for part in _less_precise(date)}


@functools.lru_cache(8192)
def facts(text: str) -> Facts:
    """The facts of `text`, after `eval.metrics.text.normalise`."""
    plain = _plain_numbers(text)
    numbers, dates = _without_dates(plain)
    proper = {word.surface for word in words(text) if (word.pos, word.subpos) == (NOUN, PROPER)}
    return Facts(
        numbers=frozenset(_decimal(number) for number in _PLAIN.findall(numbers)),
        dates=frozenset(dates),
        names=frozenset(n for n in proper if len(n) > 1 and not _KATAKANA.fullmatch(n) and n not in _ERAS),
        katakana=katakana(text),
    )


@functools.lru_cache(8192)
def katakana(text: str) -> frozenset[str]:
    """Katakana words of two characters or more after `eval.metrics.text.normalise`, the final ー dropped."""
    return frozenset(stem for word in _KATAKANA.findall(normalise(text)) if (stem := word.rstrip("ー")))


def facts_recall(answer: str, references: Sequence[str], kind: str | None = None) -> float | None:
    """Share of a reference's facts that the answer states, 0–1; of one of `KINDS`, or of all for None.

    A date counts as stated when the answer gives it as precisely or more so: 1981年7月10日 states 1981年. A bare
    1981 states the year 1981 and the other way round. With several references, the best of those that have
    facts; None when none of them has.
    """
    stated = facts(answer).implied
    wanted = [found for reference in references if (found := facts(reference).of(kind))]
    return max((len(facts_ & stated) / len(facts_) for facts_ in wanted), default=None)


def unsupported_facts(answer: str, sources: Iterable[str], kind: str | None = None) -> float | None:
    """Share of the answer's facts that none of the sources (context, question) states, 0–1; lower is better.

    A date that the sources give in two places (1981年に… 7月10日に…) counts as unsupported. None when the answer
    has no facts of the kind.
    """
    found = facts(answer).of(kind)
    supported = frozenset[str]().union(*(facts(source).implied for source in sources))
    return len(found - supported) / len(found) if found else None


def _plain_numbers(text: str) -> str:
    """`normalise(text)` with every number in plain digits: 1億2,000万 and 一億二千万 become 120000000.

    Kanji count as digits only where MeCab reads a numeral (not in 千葉, 一部 or 統一).
    """
    spelled = normalise(text)
    out, end = [], 0
    surfaces = words(text)
    for place, word in enumerate(surfaces):
        start = spelled.index(word.surface, end)
        out.append(spelled[end:start])
        one_of = word.surface == "一" and surfaces[place + 1 : place + 2] and surfaces[place + 1].surface == "つ"
        # 数百 is a numeral to MeCab, but no number.
        number = word.subpos == NUMERAL and "数" not in word.surface and not one_of
        numeral = number or word.surface in _NUMERAL_WORDS
        out.append(word.surface.translate(_DIGITS) if numeral else _KANJI.sub("_", word.surface))
        end = start + len(word.surface)
    return _RUN.sub(lambda match: _value(match.group()), "".join(out) + spelled[end:])


def _value(run: str) -> str:
    """The number that `run` spells, in digits; as it is when it is in digits already."""
    parts = _PART.findall(run)
    if len(parts) == 1 and parts[0] not in _SMALL | _LARGE:
        return parts[0].replace(",", "")
    total = section = Decimal(0)
    current: Decimal | None = None
    for part in parts:
        if part in _SMALL:
            section += (Decimal(1) if current is None else current) * _SMALL[part]
            current = None
        elif part in _LARGE:
            total += (section + (current or 0) or 1) * _LARGE[part]
            section, current = Decimal(0), None
        else:
            current = Decimal(part.replace(",", ""))
    return _decimal(str(total + section + (current or 0)))


def _decimal(number: str) -> str:
    plain = format(Decimal(number), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _without_dates(text: str) -> tuple[str, set[str]]:
    """`text` with its dates blanked, and the dates."""
    text = _ERA_YEAR.sub(lambda m: f"{_ERAS[m[1]] + (1 if m[2] == '元' else int(m[2]))}年", text)
    text = _SAME_YEAR_TWICE.sub(r"\1年", text)  # 1989年(平成元年)1月8日 is one date
    text = _YEAR_RANGE.sub(r"\1年-", text)
    dates: set[str] = set()
    spellings: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (_DECADE, lambda m: f"{int(m[1])}s"),
        (_SEPARATED, lambda m: _iso(m[1], m[3], m[4])),
        (_YEAR_SLASH_MONTH, lambda m: _iso(m[1], m[2], None)),
        (_FROM_YEAR, lambda m: _iso(m[1], m[2], m[3])),
        (_FROM_MONTH, lambda m: _iso(None, m[1], m[2])),
    )
    for spelling, date in spellings:
        dates.update(map(date, spelling.finditer(text)))
        text = spelling.sub(" _ ", text)
    return text, dates


def _iso(year: str | None, month: str | None, day: str | None) -> str:
    rest = "".join(f"-{int(part):02}" for part in (month, day) if part)
    return f"{int(year)}{rest}" if year else f"-{rest}"


def _less_precise(date: str) -> set[str]:
    """What a date says, and what it says without its day, month or year."""
    ((year, month, day),) = _ISO.findall(date)
    return {year, f"{year}{month}", f"-{month}", f"-{month}{day}"} - {"-"}
