"""Facts of Japanese texts, and what is found or unsupported, on hand-written cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.correctness import KINDS, Facts, facts, facts_recall, unsupported_facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17回", {"17"}),  # units stay out
        ("１２３個", {"123"}),  # full width
        ("1,200円", {"1200"}),  # thousands separators
        ("１，２００円", {"1200"}),
        ("1,200.50ドル", {"1200.5"}),
        ("2,3日と1,2345", {"2", "3", "1", "2345"}),  # no separators: not groups of three
        ("3.5%と0.50", {"3.5", "0.5"}),
        ("007", {"7"}),
        ("三百人", {"300"}),
        ("二十一世紀", {"21"}),
        ("千円", {"1000"}),
        ("二〇二〇", {"2020"}),  # digit by digit
        ("1億2000万円", {"120000000"}),
        ("一億二千万円", {"120000000"}),
        ("約3.5億人", {"350000000"}),
        ("10万5,000", {"105000"}),
        ("三つと二人", {"3", "2"}),
        ("その一つ、一部、一番、統一、一人、千葉、数百、何人", set()),  # no numbers to a reader
        ("100年間、3か月、13月", {"100", "3", "13"}),  # not dates
        ("第2次", {"2"}),
        ("", set()),
    ],
)
def test_numbers(text: str, expected: set[str]) -> None:
    assert facts(text).numbers == expected
    assert not facts(text).dates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019年", {"2019"}),
        ("1981年7月10日", {"1981-07-10"}),
        ("１９８１年７月１０日", {"1981-07-10"}),
        ("一九八一年七月十日", {"1981-07-10"}),
        ("1981 年 7 月 10 日", {"1981-07-10"}),
        ("1981/7/10", {"1981-07-10"}),
        ("1981-07-10", {"1981-07-10"}),
        ("1981.10.05", {"1981-10-05"}),
        ("1981/7", {"1981-07"}),
        ("1981年7月", {"1981-07"}),
        ("7月10日", {"--07-10"}),
        ("7月に", {"--07"}),
        ("1980年代", {"1980s"}),
        ("令和元年5月1日", {"2019-05-01"}),
        ("平成31年", {"2019"}),
        ("昭和五十六年", {"1981"}),
        ("大正3年と明治45年", {"1914", "1912"}),
        ("1989年（平成元年）1月8日", {"1989-01-08"}),  # one date, written twice
        ("平成元年（1989年）1月8日", {"1989-01-08"}),
        ("1981年～1987年", {"1981", "1987"}),
        ("1981〜1987年", {"1981", "1987"}),
        ("794年", {"794"}),
    ],
)
def test_dates(text: str, expected: set[str]) -> None:
    assert facts(text).dates == expected
    assert not facts(text).numbers


def test_names_and_katakana_words() -> None:
    found = facts("東京都の山田太郎は、ヴァージン・オーストラリア航空のコンピューターを令和2年に使う。ア")
    assert found.names == {"東京", "山田", "太郎"}  # katakana names are katakana words, eras are dates
    assert found.katakana == {"ヴァージン", "オーストラリア", "コンピュータ"}
    assert facts("コンピュータ").katakana == facts("ｺﾝﾋﾟｭｰﾀｰ").katakana
    assert facts("東京").names == facts("東京都").names == {"東京"}


@pytest.mark.parametrize(
    ("answer", "references", "kind", "expected"),
    [
        ("17回", ["2019年"], None, 0.0),
        ("1987年10月1日", ["1981年7月10日"], None, 0.0),  # character F1 is 1.0
        ("1981年7月10日", ["1981/7/10"], "dates", 1.0),
        ("1981年7月10日", ["1981年"], "dates", 1.0),  # more precise than asked
        ("1981年", ["1981年7月10日"], "dates", 0.0),  # less precise
        ("1981-1987", ["1981年"], None, 1.0),  # a bare year
        ("東京都", ["東京"], "names", 1.0),
        ("東京", ["東京都"], "names", 1.0),
        ("123", ["１２３"], "numbers", 1.0),
        ("1200円", ["1,200円"], "numbers", 1.0),
        ("三百", ["300"], "numbers", 1.0),
        ("東京で17回", ["東京で17回、2019年"], None, 2 / 3),
        ("17と17", ["17と18"], "numbers", 0.5),  # saying it twice does not count twice
        ("東京", ["日曜日"], None, None),  # no facts to find
        ("", ["東京"], None, 0.0),
        ("17", ["東京と17", "はい", "17"], None, 1.0),  # the best reference that has facts
        ("東京", ["2019年"], "names", None),  # none of the kind
    ],
)
def test_facts_recall(answer: str, references: list[str], kind: str | None, expected: float | None) -> None:
    assert facts_recall(answer, references, kind) == expected


@pytest.mark.parametrize(
    ("answer", "sources", "kind", "expected"),
    [
        ("17回、東京", ["東京で17回"], None, 0.0),
        ("17回、東京", ["東京で18回"], None, 0.5),
        ("17回", ["18回", "17日ですか"], None, 0.0),  # the question supports, too
        ("1981年", ["1981年7月10日"], None, 0.0),
        ("1981年7月10日", ["1981年の7月10日"], None, 1.0),  # in two places: a known limit
        ("カレー", ["カレ"], "katakana", 0.0),  # a known price of dropping the final ー
        ("はい", ["東京"], None, None),
        ("", [""], None, None),
    ],
)
def test_unsupported_facts(answer: str, sources: list[str], kind: str | None, expected: float | None) -> None:
    assert unsupported_facts(answer, sources, kind) == expected


# Characters that the expressions look at, so that they meet in every order.
TRICKY = st.text("0123456789０９〇一二十百千万億兆,.年月日元代間令和/-～()（）東京アーつ人\x00\ud800٣²½ ", max_size=25)


@given(TRICKY)
def test_any_text_has_facts_and_supports_itself(text: str) -> None:
    found = facts(text)
    assert isinstance(found, Facts)
    assert all(found.of(kind) <= found.implied for kind in KINDS)
    assert facts_recall(text, [text]) in (None, 1.0)
    assert unsupported_facts(text, [text]) in (None, 0.0)
