"""Dates and times of a text, each in one spelling: 令和元年7月, 2019/7 and 平成31年7月 are 2019-07. No torch here."""

import re
from collections.abc import Callable

from eval.metrics.facts.lexicon import LEXICON

_ERAS: dict[str, int] = LEXICON["eras"]
ERAS = frozenset(_ERAS)
_INITIALS = {"m": "明治", "t": "大正", "s": "昭和", "h": "平成", "r": "令和"}
_ERA = "|".join(_ERAS)
_ERA_YEAR = re.compile(f"({_ERA}) ?(元|\\d{{1,2}}) ?年")
_INITIAL_YEAR = re.compile(r"(?<![a-z])([mtshr])\.? ?(\d{1,2}) ?年")
# 1868(明治元)年, 1853年(嘉永6年), 794年(延暦13年): the year again, in an era, known here or not.
_YEAR_IN_ERA = re.compile(r"(?<!\d)(\d{3,4}) ?年? ?\( ?[一-龠]{2} ?(?:元|\d{1,2}) ?年? ?\)( ?年)?")
_SAME_YEAR_TWICE = re.compile(r"(\d{4}) ?年? ?\( ?\1 ?年? ?\)( ?年)?")
_SHORT_YEAR = re.compile(r"(?<![\d一-龠])(\d\d) ?年(?= ?(?:1[0-2]|0?[1-9]) ?月)")
_YEAR_RANGE = re.compile(r"(?<!\d)(\d{4}) ?[-~–―—] ?(?=\d{4} ?年)")
_BEFORE_CHRIST = re.compile(
    r"(?:紀元前|西暦前|b\.?c\.? ?)約?(\d+) ?(?:年(?!代)|(?=[^\d世千百]|$))|(?<!\d)(\d+) ?b\.?c\.?(?![a-z])"
)
_ANNO_DOMINI = re.compile(r"(?:西暦|紀元後?|a\.?d\.? ?)(?=\d)")
_BEFORE_CHRIST_OTHER = re.compile(r"(?:紀元前|西暦前)(?=約?\d)")

_MONTH, _DAY = "(1[0-2]|0?[1-9])", "(3[01]|[12][0-9]|0?[1-9])"
_DECADE = re.compile(r"(?<!\d)(\d{2,4}) ?年代")
_FROM_YEAR = re.compile(
    r"(?<!\d)(?<!数)(\d{3,4}) ?年(?![間前もぶ目]|以上|以内|以下|後(?!半)|の歴史|の間)"
    rf"(?: ?{_MONTH} ?月(?: ?{_DAY} ?日)?)?"
)
_AGED = re.compile(f"(?:{LEXICON['ages']})$")
_FROM_MONTH = re.compile(rf"(?<!\d){_MONTH} ?月(?!間)(?: ?{_DAY} ?日(?!間))?")
_SEPARATED = re.compile(rf"(?<!\d)(\d{{4}})([/.-]){_MONTH}\2{_DAY}(?!\d)")
_YEAR_SLASH_MONTH = re.compile(rf"(?<!\d)(\d{{4}})/{_MONTH}(?![\d/])")
_ISO = re.compile(r"((?:bc)?\d+s?|-)(-\d\d)?(-\d\d)?")
_WEEKDAY = re.compile("([日月火水木金土])曜日?")

_MINUTES = r"(?: ?(?P<minute>[0-5]?\d) ?分(?!間)|(?P<at_half>半))?"
_TIME = re.compile(
    r"(?P<half>午前|午後|am|pm|a\.m\.|p\.m\.|早朝|朝|未明|深夜|夕方|夜|晩|昼)?の? ?"
    rf"(?P<hour>2[0-4]|1\d|0?\d)(?: ?時(?!間|代|期){_MINUTES}"
    r"|[:](?P<colon>[0-5]\d)(?![\d:]))(?: ?(?P<after>am|pm|a\.m\.|p\.m\.))?"
    r"|(?P<short>1[0-2]|0?\d) ?(?P<only>am|pm|a\.m|p\.m)(?![a-z])"
)
_NOON = {"正午": "T12:00", "真夜中の0時": "T00:00"}
_THEN = re.compile(r" ?(?:から|~|-|と|、|,|および|及び) ?$")
_AFTER_NOON = ("午後", "pm", "p.m", "p.m.", "夕方", "夜", "晩")
UNKNOWN_HALF = "t"
"""Begins a time that may be before noon or after (3時)."""
BLANK = " _ "


def without_dates(text: str) -> tuple[str, set[str]]:
    """`text`, whose numbers are plain, with its dates and times blanked, and these.

    Dates are 1981, 1981-07, 1981-07-10, --07, --07-10 (ISO 8601; years in the western count), 1980s, bc221 and 月曜,
    times T15:00, and t3:00 where nothing says whether before noon or after.
    """
    text = _ERA_YEAR.sub(lambda m: f"{_year(m[1], m[2])}年", text)
    text = _INITIAL_YEAR.sub(lambda m: f"{_year(_INITIALS[m[1]], m[2])}年", text)
    text = _SAME_YEAR_TWICE.sub(r"\1年", text)  # 1989年(平成元年)1月8日 is one date
    text = _YEAR_IN_ERA.sub(r"\1年", text)
    text = _SHORT_YEAR.sub(lambda m: f"{_century(m[1])}年", text)  # 64年10月
    text = _YEAR_RANGE.sub(r"\1年-", text)
    dates: set[str] = set()

    def taken(spelling: re.Pattern[str], date: Callable[[re.Match[str]], str | None]) -> None:
        nonlocal text

        def take(match: re.Match[str]) -> str:
            found = date(match)
            dates.update([found] if found else [])
            return BLANK if found else match.group()

        text = spelling.sub(take, text)

    taken(_BEFORE_CHRIST, lambda m: f"bc{int(m[1] or m[2])}")
    text = _BEFORE_CHRIST_OTHER.sub("bc", _ANNO_DOMINI.sub("", text))
    taken(_DECADE, lambda m: f"{_century(m[1])}s")
    taken(_SEPARATED, lambda m: _iso(m[1], m[3], m[4]))
    taken(_YEAR_SLASH_MONTH, lambda m: _iso(m[1], m[2], None))
    taken(_FROM_YEAR, lambda m: None if _is_age(m) else _iso(m[1], m[2], m[3]))
    taken(_FROM_MONTH, lambda m: _iso(None, m[1], m[2]))
    taken(_WEEKDAY, lambda m: f"{m[1]}曜")
    text = _taken_times(text, dates)
    return text, dates


def _year(era: str, year: str) -> int:
    return _ERAS[era] + (1 if year == "元" else int(year))


def _century(decade: str) -> int:
    """The year that two digits stand for, or a decade begins with: 90年代 is 1990s, 10年代 2010s."""
    year = int(decade)
    return year if len(decade) > 2 else year + (1900 if year > 20 else 2000)


def _is_age(match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 8) : match.start()]
    return bool(not match[2] and len(match[1]) == 3 and _AGED.search(before))


def _taken_times(text: str, times: set[str]) -> str:
    """The text with its times of day blanked; they go into `times`."""
    for spelling, time in _NOON.items():
        if spelling in text:
            times.add(time)
            text = text.replace(spelling, BLANK)
    afternoon: int | None = None  # the hour of the time before, if it was said to be after noon
    out, end = "", 0
    for match in _TIME.finditer(text):
        before = text[end : match.start()]
        hour = int(match["hour"] or match["short"])
        half = match["half"] or match["after"] or match["only"]
        if not half and afternoon is not None and _THEN.fullmatch(before) and afternoon < hour <= 12:
            half = "午後"  # 午後1時から3時
        minute = 30 if match["at_half"] else int(match["minute"] or match["colon"] or 0)
        after_noon = half in _AFTER_NOON or (half == "昼" and hour < 6)
        known = bool(half) or hour > 12 or bool(match["colon"])
        hour = hour % 12 + 12 * after_noon if half and half != "昼" and hour <= 12 else hour
        hour = (hour + 12 * (half == "昼" and hour < 6)) % 24
        times.add(f"T{hour:02}:{minute:02}" if known else f"{UNKNOWN_HALF}{hour}:{minute:02}")
        afternoon = hour - 12 if after_noon else None
        out, end = f"{out}{before}{BLANK}", match.end()
    return out + text[end:]


def _iso(year: str | None, month: str | None, day: str | None) -> str:
    rest = "".join(f"-{int(part):02}" for part in (month, day) if part)
    return f"{int(year)}{rest}" if year else f"-{rest}"


def implied_by(date: str) -> set[str]:
    """What a date says: itself, and what it says without its day, month or year; its month and day as 3/11 and 11日."""
    if date.endswith("曜"):
        return {date}
    if date[0] in "Tt":
        hour, minute = date[1:].split(":")
        if date[0] == "T":
            return {date, f"{UNKNOWN_HALF}{int(hour) % 12 or 12}:{minute}", f"{UNKNOWN_HALF}{int(hour)}:{minute}"}
        return {date, f"T{int(hour):02}:{minute}"}
    ((year, month, day),) = _ISO.findall(date)
    says = {year, f"{year}{month}", f"-{month}", f"-{month}{day}"} - {"-"}
    if month and day:
        says |= {f"{int(month[1:])}/{int(day[1:])}", f"{int(day[1:])}日"}
    return says
