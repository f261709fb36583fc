"""What people read, in English and Japanese, out of one table: texts.yaml. Errors, logs and files stay English."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

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


def text(name: str, **values: object) -> str:
    """The text of that name ("rows.read_as"), with its {values} filled in."""
    page, key = name.split(".")
    return table()[page][key][language()].format(**values)


@cache
def table() -> dict[str, dict[str, dict[Language, str]]]:
    """Every text: page → name → language → text."""
    return read_yaml(TABLE)
