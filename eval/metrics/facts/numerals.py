"""Numbers however they are spelt, in plain digits: 1億2,000万 and 一億二千万 are 120000000. No torch here."""

import re
from fractions import Fraction

from eval.metrics.facts.lexicon import LEXICON
from eval.metrics.text import normalise, words

NUMERAL = "数詞"
VAGUE = "数"
"""Stands in front of a number that is said by its order only (数百万: 数1000000) or behind it (十数: 10数)."""
ONE = "壱"
"""Stands for the one of 一つ and 一人, which may count (一つある) or not (山の一つ)."""

_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_SMALL = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10**4, "億": 10**8, "兆": 10**12, "京": 10**16}
_KANJI_DIGIT, _SCALE = "〇零一二三四五六七八九", "十百千万億兆京"
_KANJI = re.compile(f"[{_KANJI_DIGIT}{_SCALE}]")
_ARABIC = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?"
_NUMBER = re.compile(
    f"(?P<vague>[数何幾])?(?P<run>(?:{_ARABIC}|[{_KANJI_DIGIT}{_SCALE}])+)(?P<some>[数余](?![一-龠]{{2}}))?"
)
_PART = re.compile(f"{_ARABIC}|[{_KANJI_DIGIT}]+|[{_SCALE}]")
_ALL_SCALE = re.compile(f"[{_SCALE}]+")
_DIGIT_BEFORE = re.compile(rf"[\d{_KANJI_DIGIT}{_SCALE}]$")
# 二重, 一例, 七面鳥, 億万長者: a kanji numeral in front of another kanji counts only where that is a counter.
_COUNTED = re.compile(f"[{LEXICON['counters']}]")
_WORD_BEHIND = re.compile("[一-龠々]")
_NO_NUMBER = re.compile(LEXICON["no_numbers"])

_ENDLESS = re.compile(rf"[\d{_KANJI_DIGIT},.]{{100,}}")
"""More digits in a row than any number has; a repeating model writes them, and arithmetic would take forever."""

_IN_KANA = {
    "ひとつ": "一つ", "ふたつ": "2つ", "みっつ": "3つ", "よっつ": "4つ", "いつつ": "5つ", "むっつ": "6つ",
    "ななつ": "7つ", "やっつ": "8つ", "ここのつ": "9つ", "ひとり": "一人", "ふたり": "2人", "二人": "2人",
}  # fmt: skip
_KANA = re.compile("|".join(_IN_KANA))
_ITEM = re.compile(r"^[ \t　]*(?:\(?[0-9０-９]{1,2}[.)、．）]|[①-⑳])(?![0-9０-９])(?=[ \t　]*\S)", re.MULTILINE)


def without_item_numbers(text: str) -> str:
    """The text without the numbers of a list's items (`1.`, `2)`, `③`) at the beginnings of its lines."""
    return _ITEM.sub("", text)


def plain_numbers(text: str) -> str:
    """`normalise(text)` with every number in digits, without separators; see `VAGUE` and `ONE`.

    Kanji count as digits only where MeCab reads a numeral (not in 千葉, 一部 or 統一) and a counter, no other kanji,
    follows. 何十人 is no number.
    """
    masked = _masked(_KANA.sub(lambda match: _IN_KANA[match.group()], _ENDLESS.sub("_", normalise(text))))
    return _NUMBER.sub(lambda match: _spelled(match, masked), masked)


def _masked(text: str) -> str:
    """The text with `_` for every kanji digit that is no numeral."""
    out, end = "", 0
    hidden = {at for match in _NO_NUMBER.finditer(text) for at in range(*match.span())}
    surfaces = words(text)
    for word in surfaces:
        start = text.index(word.surface, end)
        out += text[end:start]
        end = start + len(word.surface)
        # MeCab reads 千万 as a noun, and the 千 at a text's end as a name: behind a digit they are numerals.
        behind_digit = _ALL_SCALE.fullmatch(word.surface) and _DIGIT_BEFORE.match(out[-1:])
        numeral = word.subpos == NUMERAL or behind_digit or word.surface in ("千万", "一人")
        shown = word.surface if numeral else _KANJI.sub("_", word.surface)
        out += "".join("_" if at in hidden and _KANJI.match(c) else c for at, c in enumerate(shown, start))
    return out + text[end:]


def _spelled(match: re.Match[str], text: str) -> str:
    run, vague, some = match["run"], match["vague"], match["some"]
    behind = text[match.end("run") :]
    if vague in ("何", "幾"):
        return match.group().replace(run, "_")
    if vague and run[0] not in _SCALE:  # 数3 is two words
        return f"{vague}{_digits(run)}{some or ''}"
    if run == "一" and behind[:1] in ("つ", "人"):
        return ONE
    arabic = any(character.isascii() for character in run)
    if not arabic and len(run.strip(_SCALE)) == 0 and set(run) <= set("万億兆京"):
        return "_" * len(run)  # 億万長者, and a lone 万 or 京
    if not arabic and not some and _WORD_BEHIND.match(behind) and not _COUNTED.match(behind):
        return "_" * len(run) if len(run) == 1 else _digits(run)
    return f"{VAGUE if vague else ''}{_digits(run)}{VAGUE if some == '数' else ''}"


def _digits(run: str) -> str:
    """The number that `run` spells, in digits; as it is when it is in digits already."""
    parts = _PART.findall(run)
    if len(parts) == 1 and parts[0] not in _SMALL | _LARGE:
        return parts[0].translate(_DIGITS).replace(",", "")
    total = section = Fraction(0)
    current: Fraction | None = None
    for part in parts:
        if part in _SMALL:
            section += (1 if current is None else current) * _SMALL[part]
            current = None
        elif part in _LARGE:
            total += (section + (current or 0) or 1) * _LARGE[part]
            section, current = Fraction(0), None
        else:
            current = Fraction(part.translate(_DIGITS).replace(",", ""))
    return decimal(total + section + (current or 0))


def decimal(value: Fraction) -> str:
    """`3`, `3.5`, and `1/3` where no decimal says it."""
    digits = next((places for places in range(13) if value.denominator and 10**places % value.denominator == 0), None)
    if digits is None:
        return f"{value.numerator}/{value.denominator}"
    whole = f"{abs(value.numerator) * 10**digits // value.denominator:0{digits + 1}}"
    sign = "-" if value < 0 else ""
    return sign + (f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole)
