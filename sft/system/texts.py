"""What people read, in English and Japanese, out of one table: texts.yaml. Errors, logs and files stay English."""

import os
import re
import string
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from sft.system.visible import counted
from sft.system.yaml_text import read_yaml

Language = Literal["en", "ja"]
TABLE = Path(__file__).with_name("texts.yaml")

_asked: Language | None = None


def speak(language: Language | None) -> None:
    """Set the language of everything that `text` gives from now on; None: the locale's."""
    global _asked
    _asked = language


def language() -> Language:
    """The language asked for or, without one, Japanese where the locale of messages is Japanese, else English."""
    if _asked:
        return _asked
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "ja" if locale.lower().startswith("ja") else "en"


class Count(int):
    """A number that a text holds as {rows}, 2,000, or with its noun as {rows:row}, 2,000 rows.

    Where more than the noun follows the number, both are given, {rows:row has|rows have}; with = before them the number
    is left out.
    """

    def __format__(self, noun: str) -> str:
        one, divided, several = noun.partition("|")
        if divided:
            words = one.removeprefix("=") if self == 1 else several
            return words if noun.startswith("=") else f"{int(self):,} {words}"
        return counted(self, noun) if noun else f"{int(self):,}"


class Said(str):
    """A text that errors and warnings have in English; `here` is the same in the reader's language."""

    here: str

    def __new__(cls, english: str, here: str) -> "Said":
        found = super().__new__(cls, english)
        found.here = here
        return found

    def __reduce__(self) -> tuple[type["Said"], tuple[str, str]]:
        return Said, (str(self), self.here)  # of which a copy is made


def text(name: str, /, **values: object) -> str:
    """The text of that name ("rows.read_as"), with its {values} filled in."""
    page, key = name.split(".")
    return table()[page][key][language()].format(**values)


def said(name: str, /, **values: object) -> Said:
    """The text of that name in both languages; so are those of its {values} that are `Said`."""
    page, key = name.split(".")
    languages = table()[page][key]
    here = {key: here_of(value) if isinstance(value, str) else value for key, value in values.items()}
    return Said(languages["en"].format(**values), languages[language()].format(**here))


def here_of(found: str) -> str:
    """A text in the reader's language, if it is known in both; else as it is."""
    return found.here if isinstance(found, Said) else found


def one_after_another(parts: Iterable[str]) -> Said:
    """Words or half-sentences as a list."""
    return _put_together(parts, ", ", "、")


def sentences(parts: Iterable[str]) -> Said:
    """Several things that are said, one behind the other."""
    return _put_together(parts, "; ", "。")


def all_of(parts: Iterable[str]) -> Said:
    """Few things that belong together."""
    return _put_together(parts, " and ", "と")


def alternatives(parts: Iterable[str]) -> Said:
    """Things of which one is enough."""
    return _put_together(parts, "; or ", "、または ")


def _put_together(parts: Iterable[str], english: str, japanese: str) -> Said:
    found = list(parts)
    return Said(english.join(found), (japanese if language() == "ja" else english).join(map(here_of, found)))


def subject_word(english: str) -> str:
    """What a line of the doctor is about, in the reader's language; as it is where the table lacks it."""
    return next((words[language()] for words in table()["subjects"].values() if words["en"] == english), english)


def told(found: str) -> str:
    """What the reading of rows found, as logs have it, in the reader's language; as it is where the table lacks it."""
    if language() == "en":
        return found
    for pattern, template in _found():
        if match := pattern.fullmatch(found):
            return template.format(**{name: told(value) for name, value in match.groupdict().items()})
    return listed(found.split(", ")) if ", " in found else found


def listed(words: Iterable[str]) -> str:
    """What was found, one after another, in the reader's language."""
    return series(map(told, words))


def series(words: Iterable[str], english: str = ", ") -> str:
    """Words one after another; `english` stands between them where the reader's language is English."""
    return ("、" if language() == "ja" else english).join(words)


def space() -> str:
    """What stands between two sentences, or behind a colon."""
    return "" if language() == "ja" else " "


def stop() -> str:
    """What ends a sentence that ends in others' words."""
    return "。" if language() == "ja" else "."


@cache
def _found() -> list[tuple[re.Pattern[str], str]]:
    """The texts of the page `found`, English ones as patterns, with their Japanese ones; those of most words first."""
    pairs = []
    for languages in sorted(table()["found"].values(), key=lambda text: -len(re.sub("{.*?}", "", text["en"]))):
        parts = string.Formatter().parse(languages["en"])
        pattern = "".join(re.escape(before) + (_group(name) if name else "") for before, name, _, _ in parts)
        pairs.append((re.compile(pattern, re.DOTALL), languages["ja"]))
    return pairs


def _group(name: str) -> str:
    values = {"number": r"[\d,]+", "sheet": r'(?:(?!", sheet ").)+', "encoding": "[^;,]+", "schema": "[^;]+"}
    return f"(?P<{name}>{values.get(name, '.+')})"


@cache
def table() -> dict[str, dict[str, dict[Language, str]]]:
    """Every text: page → name → language → text."""
    return read_yaml(TABLE)
