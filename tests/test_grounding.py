"""Copying from the context, and behaviour, on hand-computed cases."""

import pytest

from eval.metrics.behaviour import distinct_2, ended, length_ratio, particle_share, punctuation_share, rep_4
from eval.metrics.grounding import extraction, fragments, katakana_support, noun_support, number_support


@pytest.mark.parametrize(
    ("answer", "context", "expected"),
    [
        ("東京タワーです", "高い東京タワーがある", ["東京タワー"]),
        ("東京タワー", "東京タワーと東京タワーの下", ["東京タワー"]),
        ("東京タワーの下", "東京タワーと東京タワーの下", ["東京タワーの下"]),  # the longest that starts there
        ("abcdeXbcdef", "abcdef", ["abcde", "bcdef"]),
        ("abcdefgh", "abcd efgh", ["abcd", "efgh"]),
        ("abc", "xxabcxx", ["abc"]),  # short answers are copied whole or not at all
        ("abc", "xxabxx", []),
        ("abcX", "abcd", []),  # three characters are not a passage
        ("ＡＢＣＤ", "abcd", ["abcd"]),
        ("", "abcd", []),
        ("abcd", "", []),
    ],
)
def test_fragments(answer: str, context: str, expected: list[str]) -> None:
    assert fragments(answer, context) == expected


def test_extraction() -> None:
    assert extraction("東京タワーですよね", "高い東京タワーがある") == (5 / 9, 25 / 9)
    assert extraction("abcdeXbcdef", "abcdef") == (10 / 11, 50 / 11)
    assert extraction("東京タワー。", "東京タワー") == (1, 5)
    assert extraction("大阪", "東京タワー") == (0, 0)
    assert extraction("", "東京タワー") is None
    assert extraction("東京", " ") is None


def test_support() -> None:
    context = "東京タワーは1958年に333メートルの塔として完成した。"
    assert noun_support("東京の塔と大阪", context) == pytest.approx(2 / 3)
    assert noun_support("17", context) is None  # numerals are no nouns here
    assert number_support("1958年12月に333mで17階", context) == pytest.approx(1 / 3)
    assert number_support("三百三十三", context) == 1
    assert katakana_support("タワーとビル", context) == 0.5
    assert katakana_support("塔", context) is None
    assert noun_support("東京", "") is number_support("17", "") is katakana_support("タワー", "") is None


def test_length_ratio_and_ended() -> None:
    assert length_ratio(" 東京です\n", "東京") == 2
    assert length_ratio("", "東京") == 0
    assert length_ratio("東京", " ") is None
    assert [ended(reason) for reason in ("eos", "length", "error")] == [1, 0, 0]


def test_repetition() -> None:
    assert rep_4("東京は首都です") == 0
    assert rep_4("はい、はい、はい、はい、") == pytest.approx(1 - 2 / 5)  # はい|、 four times: five 4-grams, two differ
    assert rep_4("日本の首都は") == 0  # one 4-gram
    assert rep_4("東京は首都") is None  # three tokens
    assert distinct_2("はい、はい、はい") == 0.5  # four bigrams, two differ
    assert distinct_2("東京") is None
    assert distinct_2("") is None


def test_what_a_text_is_made_of() -> None:
    assert particle_share("日本の首都は東京です。") == pytest.approx(2 / 6)  # 日本|の|首都|は|東京|です
    assert particle_share("東京 大阪") == 0
    assert particle_share("") is None
    assert punctuation_share("東京、大阪。") == pytest.approx(2 / 6)  # the final one, too
    assert punctuation_share("ラーメン (大)\n") == pytest.approx(2 / 7)  # ー is a letter
    assert punctuation_share(" \n") is None
