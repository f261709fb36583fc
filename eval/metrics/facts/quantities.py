"""Numbers of a text with their units, each in one spelling: 5km, 5キロ and 5,000メートル are 5000m. No torch here."""

import functools
import re
from fractions import Fraction

from eval.metrics.facts.lexicon import LEXICON
from eval.metrics.facts.numerals import ONE, VAGUE, decimal

_ALIASES: dict[str, dict[str, str]] = LEXICON["units"]
_UNITS = {
    spelling: (base, Fraction(factor))
    for base, spelt in _ALIASES.items()
    for factor, spellings in spelt.items()
    for spelling in spellings.split()
}
_SPELLINGS = "|".join(
    re.escape(s) + ("(?![a-z])" if s.isascii() and s[-1].isalnum() else "")
    for s in sorted(_UNITS, key=len, reverse=True)
)
# Any katakana word is a unit, and so is a kanji that says nothing of how exact the number is.
_UNIT = rf"(?:(?P<unit>{_SPELLINGS})|(?P<other>[ァ-ヺー]{{2,}}|(?<=\d)(?![以約程前後内外超未弱強余間中的およ])[一-龠]))"
_MINUS = r"(?:bc|マイナス|氷点下|零下|[△▲]|(?<![0-9a-z_年月日時分人階頁話巻)%])(?<!_ )(?<!\d )-)"
_MONEY = {"¥": "円", "$": "ドル", "€": "ユーロ", "第": "番", "華氏": "°f"}
_QUANTITY = re.compile(
    rf"(?P<minus>{_MINUS} ?)?(?P<before>[¥$€第]|華氏)?(?P<vague>{VAGUE})?(?P<value>\d+(?:\.\d+)?)(?P<some>{VAGUE})?"
    rf"(?: ?{_UNIT})?(?P<half>半(?![一-龠ば]))?"
)
_ONE = re.compile(f"{ONE}(つ|人)")
_HALF_YEAR, _HALF_DAY, _HALF = re.compile("半年"), re.compile("半日"), re.compile("半[分数額]")
_FRACTION = re.compile(r"(?P<whole>\d+) ?分の ?(?P<part>\d+)|(?<![\d/])(?P<over>\d{1,3})/(?P<under>\d{1,3})(?![\d/])")
_OF_SO_MANY = re.compile(r"(?P<whole>[1-9]\d*)(人|名|個|回|件)に ?(?P<part>\d+) ?\2(?![分前目])")  # 3人に1人
_KILOGRAMS = re.compile("体重|重[さ量い]|荷")
_KILO = re.compile("キロ(?![ァ-ヺー])")
_PER = re.compile(r"(\d+(?:\.\d+)?) ?(k?m|(?:キロ)?メートル|キロ)(?:/(h|時|s|秒|min|分)(?![a-z])|毎([時秒分]))")
_OF_TIME = {"h": "時", "s": "秒", "min": "分"}
_SPEED = re.compile("(?:([秒分時])速|毎([秒分時]))(?:約|およそ)?$")
_AN_HOUR = {"秒": 3600, "分": 60, "時": 1}
_CONSECUTIVE = ("秒", "m", "g", "%", "か月")
_FACT = re.compile(r"数?(-?\d+(?:\.\d+)?|\d+/\d+)数?")
_SHARE = re.compile(r"\d+/\d+")
_A_TO_B = re.compile(r"(\d+(?:\.\d+)?) ?(?:~|から|-|–|―|—|、|,|・) ?(?=\d)")


def quantities(text: str) -> tuple[set[str], set[str]]:
    """The quantities of `text`, whose numbers are plain and dates blank, and the ones that may be none (山の一つ).

    A quantity is a number with its unit where it has one: 17回, 5000m, -5度, 50%, 1/3, 17; 数1000000人 for 数百万人.
    """
    ones = {f"1{'個' if match[1] == 'つ' else '人'}" for match in _ONE.finditer(text)}
    shares = {f"{int(m['part'] or m['over'])}/{int(m['whole'] or m['under'])}" for m in _FRACTION.finditer(text)}
    shares |= {f"{int(m['part'])}/{int(m['whole'])}" for m in _OF_SO_MANY.finditer(text)}
    text = _OF_SO_MANY.sub(" _ ", _FRACTION.sub(" _ ", text))
    text = _PER.sub(lambda m: f"{_OF_TIME.get(m[3], m[3] or m[4])}速{m[1]}{m[2]}", text)  # 60km/h is 時速60km
    text = _HALF_YEAR.sub("6か月", _HALF_DAY.sub("12時間", _HALF.sub("50%", text)))
    text = _with_shared_units(text)
    found: list[str] = []
    last: tuple[int, str, Fraction, Fraction] | None = None  # where the one before ended, its unit, size and value
    for match in _QUANTITY.finditer(text):
        unit, size = _unit(match)
        value = (Fraction(match["value"]) + (Fraction(1, 2) if match["half"] else 0)) * size
        value = -value if match["minus"] else value
        if last and last[0] == match.start() and unit in _CONSECUTIVE and last[1] == unit and size < last[2]:
            found.pop()
            value += last[3]  # 1時間30分, 2割5分
        found.append(f"{VAGUE if match['vague'] else ''}{_fact(value, unit, VAGUE if match['some'] else '')}")
        last = match.end(), unit, size, value
    return {*found, *shares}, ones


def with_kilograms(text: str, question: str) -> str:
    """The text with kilograms where it says キロ and the question asks for a weight."""
    return _KILO.sub("kg", text) if _KILOGRAMS.search(question) else text


def _with_shared_units(text: str) -> str:
    """10~20人 says 10人, too."""
    pieces, end = [], 0
    for match in _A_TO_B.finditer(text):
        other = _QUANTITY.match(text, match.end())
        if match.start() >= end and other and other["unit"]:
            pieces += [text[end : match.end(1)], other["unit"], text[match.end(1) : match.end()]]
            end = match.end()
    return "".join([*pieces, text[end:]])


def _unit(match: re.Match[str]) -> tuple[str, Fraction]:
    """The base unit, "" for none, and how many of it the unit holds."""
    if match["unit"] is None:
        return match["other"] or _MONEY.get(match["before"] or "", ""), Fraction(1)
    if match["before"] == "第" and match["unit"] in ("位", "番目", "番"):
        return "位", Fraction(1)
    unit, size = _UNITS[match["unit"]]
    before = match.string[max(0, match.start() - 8) : match.start()]
    if speed := _SPEED.search(before):
        return f"{unit}/時", size * _AN_HOUR[speed[1] or speed[2]]
    if match["unit"] == "キロ" and _KILOGRAMS.search(before):
        return "g", size
    if match["unit"] == "分" and before.endswith("割"):
        return "%", Fraction(1)  # 2割5分
    return unit, size


def _fact(value: Fraction, unit: str, some: str = "") -> str:
    return f"{decimal(value)}{some}{unit}"


@functools.lru_cache(4096)
def implied_by(quantity: str) -> frozenset[str]:
    """What a quantity says: itself, its number without the unit, and a share in another spelling (50%, 1/2)."""
    says = {quantity, *without_unit(quantity)}
    if quantity.endswith("%") and (share := _number(quantity[:-1])) is not None:
        says.add(f"{(share / 100).numerator}/{(share / 100).denominator}")
    if "/" in quantity and (share := _number(quantity)) is not None:
        says |= {f"{decimal(share * 100)}%", f"{share.numerator}/{share.denominator}"}
        part, whole = map(int, quantity.split("/")) if _SHARE.fullmatch(quantity) else (0, 0)
        says |= {f"--{part:02}-{whole:02}"} if 1 <= part <= 12 and 1 <= whole <= 31 else set()  # 3/11 is a day, too
    return frozenset(says)


@functools.lru_cache(4096)
def without_unit(quantity: str) -> frozenset[str]:
    """The bare numbers that may mean it: 17 for 17回, 5 and 5000 for 5km. None for shares."""
    found = _FACT.match(quantity)
    value = _number(found[1]) if found else None
    if found is None or value is None or quantity[found.end() :][:1] in ("%", "-", ":") or quantity.endswith("s"):
        return frozenset()  # shares and dates
    before, after = found.group().split(found[1], 1)
    sizes = [Fraction(factor) for factor in _ALIASES.get(quantity[found.end() :], {})] or [Fraction(1)]
    return frozenset(f"{before}{decimal(value / size)}{after}" for size in sizes)


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
