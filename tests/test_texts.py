"""The table of texts is whole: every text in both languages, with the same values, and none that nobody shows."""

import re
import string
from pathlib import Path

import pytest

from sft.system import texts
from sft.system.texts import language, speak, table, text

ROOT = Path(__file__).parents[1]
NAMES = {f"{page}.{name}" for page, found in table().items() for name in found}


def used() -> set[str]:
    files = [path for room in ("sft", "eval") for path in (ROOT / room).rglob("*.py")]
    files += [ROOT / "train_sft.py", ROOT / "infer.py"]
    return {name for path in files for name in re.findall(r'\btext\(\s*"(\w+\.\w+)"', path.read_text(encoding="utf-8"))}


def values(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_text_is_there_in_both_languages_with_the_same_values(name):
    page, key = name.split(".")
    languages = table()[page][key]
    assert languages.keys() == {"en", "ja"}
    assert values(languages["en"]) == values(languages["ja"])
    assert re.search("[ぁ-んァ-ヶ一-龠]", languages["ja"])
    assert not re.search("[ぁ-んァ-ヶ一-龠]", re.sub("「.*?」", "", languages["en"]))


def test_every_text_is_shown_somewhere_and_none_is_missing():
    assert used() == NAMES


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LC_MESSAGES": "ja_JP"}, "ja"),
        ({}, "en"),
    ],
)
def test_the_language_is_the_locales_unless_one_is_asked_for(monkeypatch, variables, expected):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(texts, "_asked", None)
    assert language() == expected
    speak("ja")
    assert language() == "ja"
    assert text("rows.no_category") == "分類なし"
