"""What spreadsheets and broken exports leave in texts: repaired where there is one right repair, named otherwise."""

import math
import re
import unicodedata
from collections import Counter
from typing import Any

from sft.data.files.raw import ACROSS, UNCALCULATED, BadRow, Shown

EMPTY = {"NaN", "nan", "None", "#N/A", "<NA>", "NaT"}
"""How pandas and spreadsheets write that a cell holds nothing."""
ERRORS = {"#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#N/A", "#SPILL!", "#CALC!", "#FIELD!"}
CELL_LIMIT = 32_767
"""Characters that fit a cell of Excel, which cuts what is longer."""
SHOWN = 3

ESCAPES, ENDS, NOTHING = "_x000D_ and its like", "full-width spaces at the ends", "nan, None or #N/A for nothing"
REPAIRED = (ESCAPES, ENDS, NOTHING)

TEMPLATE = "a prompt's template inside a question"
_UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters of no shape: Hangul's fillers and Braille's blank."""

_ESCAPE = re.compile(r"_x000(?:[dD]_\r?\n?|[aA]_)")
_TAB = re.compile(r"_x0009_")
_FORMULA = re.compile(r"=[A-Z][A-Z.]*\(|=\"|=\$?[A-Z]{1,3}\$?\d+\b")
_NUMBER = re.compile(r"\d{5}(?:\.\d+)?|\d(?:\.\d+)?E\+\d+")
_UTF8_AS_CP932 = re.compile("[縺繧繝].{0,2}[縺繧繝]")
_UTF8_AS_LATIN = re.compile("ã[\x80-\x9f‚ƒ„…€]")
_UNDECODED_JIS = re.compile(r"\x1b\$[@B]")
_DATES = range(25_569, 60_000)
"""The days from 1970 to 2064 as Excel counts them."""


class CellNotes:
    """How many cells were repaired or look wrong, by kind, and the first few of each with their place."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, kind: str, place: str, text: str) -> None:
        """Count a cell."""
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < SHOWN:
            examples.append((place, text[:30]))


def is_empty(value: Any) -> bool:
    """Whether a cell says that it holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or value in ("", *EMPTY)


def whole_number(value: Any) -> Any:
    """A whole number as its text, and any other value as it is."""
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        return value
    return str(int(value))


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, and signs without a width."""
    return all(character in _FILLERS or unicodedata.category(character) in _UNSEEN for character in text)


def check_text(value: Any, name: str) -> None:
    """Raise BadRow for what is not text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    if "\0" in value:
        raise BadRow(f"{name} holds a null character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name} is not valid Unicode (a lone surrogate)") from None


def clean_text(value: str, field: str, required: bool, place: str, notes: CellNotes) -> str:
    """The text of a field without the debris that has one right repair; what else looks wrong is noted.

    Raises BadRow for a cell that holds an error in place of a text.
    """
    if value.lstrip()[:1] == "#" and (value.strip() in ERRORS or (value[:3] == "###" and not value.strip("#"))):
        raise BadRow(f"{field} is {value.strip()[:10]}, an error of the spreadsheet")
    if isinstance(value, Shown):
        if value.kind == UNCALCULATED:
            raise BadRow(f"{field} is {UNCALCULATED}")
        if value.kind == ACROSS and required:
            raise BadRow(f"{field} is {ACROSS}, merged with it")
        notes.add(f"{value.kind} for a text", place, value)
    text = str(value)
    if "_x000" in text:
        repaired = _TAB.sub("\t", _ESCAPE.sub("\n", text))
        if repaired != text:
            notes.add(ESCAPES, place, text)
            text = repaired
    if text[:1] == "\u3000" or text[-1:] == "\u3000":
        notes.add(ENDS, place, text)
        text = text.strip(" \u3000")
    for kind in _suspicions(text, required):
        notes.add(kind, place, text)
    return text


def _suspicions(text: str, required: bool) -> list[str]:
    """The kinds of damage that a text shows."""
    kinds = []
    if (
        "\ufffd" in text
        or ("縺" in text and _UTF8_AS_CP932.search(text))
        or ("ã" in text and _UTF8_AS_LATIN.search(text))
        or ("\x1b" in text and _UNDECODED_JIS.search(text))
    ):
        kinds.append("broken characters")
    if "\r" in text:
        kinds.append("carriage returns")
    if required and text[:1] == "=" and _FORMULA.match(text):
        kinds.append("a formula")
    if required and len(text) < 20 and text[:1].isdigit() and (number := _NUMBER.fullmatch(text.strip())):
        if "E" in number[0]:
            kinds.append("a number that lost its digits")
        elif int(float(number[0])) in _DATES:
            kinds.append("perhaps a date as Excel counts days")
    if len(text) == CELL_LIMIT:
        kinds.append("perhaps cut off at the size of an Excel cell")
    return kinds
