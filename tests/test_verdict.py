"""The verdict by rules on adversarial pairs, and each of its rules on cases of its own."""

import time

import pytest
from verdict_table import BEGIN, DOCUMENT, END, SETS, hits, pairs, table

from eval.metrics.catalogue import CORRECT
from eval.metrics.verdict.correct import correct
from eval.metrics.verdict.exchange import exchanged
from eval.metrics.verdict.guesses import items
from eval.metrics.verdict.polarity import polarity, predicates, refuses, said, without_withdrawn

ENOUGH = 0.85


@pytest.mark.parametrize("name", SETS.values())
def test_the_verdict_is_right_on_adversarial_pairs(name: str) -> None:
    found = pairs(name)
    assert len(found) >= 40
    assert hits(CORRECT, found) / len(found) >= ENOUGH


def test_the_documents_table_is_what_the_metrics_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0] == table()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京です", "yes"),
        ("東京ではありません", "no"),
        ("はい、飛べます", "yes"),
        ("いいえ", "no"),
        ("飛べません", "no"),
        ("飛べないわけではない", "yes"),
        ("行かなければならない", "yes"),
        ("東京で間違いない", "yes"),
        ("不可能です", "no"),
        ("不要です", "no"),
        ("ない", "no"),
        ("東京だけでなく大阪です", "yes"),
        ("東京だというのは誤りです", "no"),
        ("東京というのは正しくありません", "no"),
        ("使うことはできません", "no"),
        ("行かないといけない", "yes"),
        ("", None),
    ],
)
def test_polarity(text: str, expected: str | None) -> None:
    assert polarity(text) == expected


def test_what_is_said_to_be_so_and_not_so() -> None:
    assert said("東京ではなく大阪です").so_words == {"大阪"}
    assert said("東京ではなく大阪です").not_so_words == {"東京"}
    assert said("東京以外の都市").not_so_words == {"東京"}
    assert said("東京ではないと思います").not_so_words == {"東京"}
    assert said("飛ぶことができない").not_so_words == said("飛べない").not_so_words == {"飛ぶ"}
    assert predicates("効果は認められなかった") == (("有る", "no"),)
    assert predicates("予約は不要です。予約は必要です。") == (("必要", "no"), ("必要", "yes"))


@pytest.mark.parametrize(
    ("text", "about", "expected"),
    [
        ("富士山かどうかは分かりません。", "日本一高い山は？", True),
        ("文章に記載がありません。", "首都は？", True),
        ("お答えできません。", "首都は？", True),
        ("東京です。人口は分かりません。", "首都は？", False),  # about something else
        ("東京です。", "首都は？", False),
        ("答えが分かりやすい。", "首都は？", False),
    ],
)
def test_refusals(text: str, about: str, expected: bool) -> None:
    assert refuses(text, about) == expected


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("犬が猫を追う。", "猫が犬を追う。", True),
        ("犬が猫を追う。", "猫が犬に追われる。", False),
        ("巨人が阪神に勝った。", "阪神が巨人に負けた。", False),
        ("日本の首都は東京です。", "東京は日本の首都です。", False),
        ("男性3人、女性5人", "女性5人、男性3人", False),
        ("男性3人、女性5人", "男性5人、女性3人", True),
    ],
)
def test_exchanges(reference: str, answer: str, expected: bool) -> None:
    assert exchanged(reference, answer) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京です。失礼しました、正しくは大阪です。", "大阪です。"),
        ("東京です。いや、大阪です。", "大阪です。"),
        ("通称はヒナギク、正しくはデイジーです。", "通称はヒナギク、正しくはデイジーです。"),  # one sentence
        ("東京です。失礼しました。", "東京です。失礼しました。"),  # nothing in its place
        ("東京です。すみません、正確には大阪です。", "大阪です。"),
        ("1603年です。正確には3月24日です。", "1603年です。正確には3月24日です。"),  # more of the same
    ],
)
def test_what_is_taken_back(text: str, expected: str) -> None:
    assert without_withdrawn(text) == expected


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("C", "C++です", 0.0),
        ("C#", "Cです", 0.0),
        ("info@example.jp", "info@example.comです", 0.0),
        ("Amazon", "Amazon.comです", 1.0),
        ("J.K.ローリング", "J・K・ローリングです", 1.0),
        ("J・K・ローリング", "J.K.ローリングです", 1.0),
        ("J.K.ローリング", "JKローリングです", 1.0),
    ],
)
def test_names_in_latin_letters(reference: str, answer: str, right: float) -> None:
    assert correct(answer, [reference]) == right


def test_long_runs_of_marks_take_no_time() -> None:
    start = time.process_time()
    for text in ("。" * 20_000, "。 " * 10_000, "\n" * 20_000, "a" + "." * 20_000, "a.a" * 7_000, "a." * 10_000):
        without_withdrawn(text)
        correct(text[:4000], ["example.jp"])
    assert time.process_time() - start < 5


def test_items() -> None:
    assert items("1. 清水寺\n2. 東大寺") == ["清水寺", "東大寺"]
    assert items("清水寺に行く") == ["清水寺に行く"]


def test_the_best_of_several_references_counts_and_nothing_is_never_right() -> None:
    assert correct("東京", ["大阪", "東京都"], "首都は？") == 1
    assert correct("東京", [], "首都は？") == 0
    assert correct("", ["東京"], "首都は？") == correct("東京", [""], "首都は？") == correct("", [""]) == 0
