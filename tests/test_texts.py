"""The table of texts is whole: every text in both languages, with the same values, and none that nobody shows."""

import ast
import copy
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval import compare
from eval.benchmarks.known import BENCHMARKS
from eval.judge.rows import KEY as JUDGE_SCORE
from eval.metrics.catalogue import BY_KEY
from sft.data.fields import cells
from sft.data.fields.defects import DEFECTS
from sft.data.fields.schemas import KNOWN
from sft.data.split import HELD_ELSEWHERE
from sft.system import texts
from sft.system.files import FIELD_TWICE
from sft.system.texts import language, said, speak, table, text, told

ROOT = Path(__file__).parents[1]
NAMES = {f"{page}.{name}" for page, found in table().items() for name in found}
FOUND = {name for name in NAMES if name.startswith(("found.", "subjects."))}
"""Texts that are looked up by their English words; the others are shown by their names."""
KEYED = {"metric": {*BY_KEY, JUDGE_SCORE}, "authors": set(BENCHMARKS)}
"""Pages whose texts are looked up by the keys of what they name."""


def used() -> set[str]:
    files = [path for room in ("sft", "eval") for path in (ROOT / room).rglob("*.py")]
    files += [ROOT / "train_sft.py", ROOT / "infer.py"]
    return {
        name
        for path in files
        for name in re.findall(r'\b(?:text|said)\(\s*"(\w+\.\w+)"', path.read_text(encoding="utf-8"))
    }


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
    by_keys = {f"{page}.{key}" for page, keys in KEYED.items() for key in keys}
    assert used() | by_keys == NAMES - FOUND


@pytest.mark.parametrize("page", KEYED)
def test_a_page_by_keys_names_all_that_has_one_and_nothing_else(page):
    assert set(table()[page]) == KEYED[page]


def reading_says() -> Iterator[str]:
    """What the reading of rows can say of them: reasons of drops, kinds of tables and cells, defects and schemas."""
    for path in (ROOT / "sft" / "data").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("BadRow", "Table", "kinds.append"):
                yield from written(call.args[0])
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Shown":
                yield from (f"{kind} for a text" for kind in written(call.args[1]))
    yield from (*cells.REPAIRED, *DEFECTS.values(), FIELD_TWICE, HELD_ELSEWHERE)
    yield from (name for name in KNOWN.values() if name[0].islower() and " " in name)
    yield from ("CSV in cp932, tabs between cells", "JSON array rows in UTF-8", "JSON columns in UTF-16")
    yield from ("row 5", "line 1,234", 'row 5 of sheet "FAQ"', "faq.csv row 5", 'b.xlsx row 5 of sheet "FAQ"')
    yield from ("alpaca, no categories", 'sheet "FAQ"; sheet "メモ" left out')


def written(node: ast.expr) -> list[str]:
    """The texts that an expression may be, with an x for what is filled in; none where it is a name."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return written(node.body) + written(node.orelse)
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)]
    return []


def test_what_reading_finds_has_japanese_words(monkeypatch):
    monkeypatch.setattr(texts, "_asked", "ja")
    said = set(reading_says())
    assert len(said) > 60
    assert not [words for words in said - {"xx", "x in x", "x is x"} if told(words) == words and words != "no x"]
    assert told("faq.csv row 12") == "faq.csvの12行目"
    assert told("question and answer, no categories") == "質問と回答、カテゴリなし"
    several = 'sheet "FAQ", header in row 2; sheet "一", sheet "二" left out'
    assert told(several) == "シート「FAQ」、見出しは2行目、対象外はシート「一」、シート「二」"
    assert told("a.csv row 1, b.csv row 2") == "a.csvの1行目、b.csvの2行目"
    assert told("not an object with fields") == "項目を持つオブジェクトではない"
    assert told("empty 回答") == "回答が空"
    assert told("質問 → instruction, 回答 → output") == "質問 → instruction、回答 → output"
    assert told("(回答 is null") == "(回答がnull"
    assert told("an earlier message is not text") == "前のメッセージがテキストではない"
    several = "alpaca, no categories; messages, no categories"
    assert told(several) == "alpaca、カテゴリなし、または会話（messages）、カテゴリなし"
    form = 'sheet "FAQ"; sheet "説明", sheet "別" left out; not read: 参考, 備考 and 2 more'
    assert told(form) == "シート「FAQ」、対象外はシート「説明」、シート「別」、読まない列: 参考、備考ほか2列"
    assert told("JSON array in UTF-8; not read: text") == "UTF-8のJSON配列、読まない列: text"
    speak("en")
    assert told("empty 回答") == "empty 回答"


@pytest.mark.parametrize(("shots", "said"), [(1, "プロンプトに例1件"), (4, "プロンプトに例4件")])
def test_how_answers_were_asked_has_japanese_words(monkeypatch, tmp_path, shots, said):
    """What a comparison says of each run's answers."""
    about = SimpleNamespace(deviations=[], shots=shots, brief=True, run="")
    monkeypatch.setattr(compare, "provenance_of", lambda *words: about)
    monkeypatch.setattr(texts, "_asked", "ja")
    assert [*map(told, compare._otherwise(tmp_path / "eval" / "predictions.jsonl"))] == [said, "短い回答を指示"]


def test_a_text_in_both_languages_is_copied_whole(monkeypatch):
    monkeypatch.setattr(texts, "_asked", "ja")
    for copied in (
        copy.deepcopy(said("doctor.no_duplicates")),
        pickle.loads(pickle.dumps(said("doctor.no_duplicates"))),
    ):
        assert (copied, copied.here) == ("no two rows say the same", "重複はありません")


def test_no_finding_hides_another():
    """A text of the table, its values filled in, is found again by itself and not by one above it."""
    for name, languages in table()["found"].items():
        fields = values(languages["en"])
        example = languages["en"].format(**{field: "7" if field == "number" else "値" for field in fields})
        first = next(template for pattern, template in texts._found() if pattern.fullmatch(example))
        assert first == languages["ja"], name


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
    assert text("rows.no_category") == "カテゴリなし"
