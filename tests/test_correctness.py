"""Facts of Japanese texts, and what is found or unsupported, on hand-written cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.correctness import KINDS, Facts, facts, facts_recall, unsupported_facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17回", {"17回"}),  # the unit belongs to the number
        ("１２３個", {"123個"}),  # full width
        ("1,200円", {"1200円"}),  # thousands separators
        ("１，２００円", {"1200円"}),
        ("¥1,200", {"1200円"}),
        ("1,200.50ドル", {"1200.5ドル"}),
        ("2,3日と1,2345", {"2日", "3日", "1", "2345"}),  # no separators: not groups of three
        ("3.5%と0.50", {"3.5%", "0.5"}),
        ("007", {"7"}),
        ("三百人", {"300人"}),
        ("二十一世紀", {"21世紀"}),
        ("千円", {"1000円"}),
        ("二〇二〇", {"2020"}),  # digit by digit
        ("1億2000万円", {"120000000円"}),
        ("一億二千万円", {"120000000円"}),
        ("1億2千万", {"120000000"}),  # MeCab reads 千万 as a noun
        ("約5億1千万平方キロメートル", {"510000000000000m2"}),
        ("約5千万。", {"50000000"}),  # and the 千 at a text's end as a name
        ("約3.5億人", {"350000000人"}),
        ("10万5,000", {"105000"}),
        ("10万5千", {"105000"}),
        ("三つと二人", {"3個", "2人"}),
        ("ふたつとふたり", {"2個", "2人"}),
        ("1つ", {"1個"}),
        ("その一つ、一部、一番、統一、一人、千葉、何人、何十人", set()),  # no numbers to a reader
        ("億万長者、万年筆、七面鳥、二酸化炭素、二重、一例", set()),
        ("数百、数百万、数千万円、十数人", {"数100", "数1000000", "数10000000円", "10数人"}),
        ("100年間、3か月、一カ月、3ヶ月、13月", {"1200か月", "3か月", "1か月", "13月"}),  # not dates
        ("第2次", {"2次"}),
        ("創業120年の店", {"1440か月"}),
        ("-5℃、−6度、氷点下7度、マイナス8度", {"-5度", "-6度", "-7度", "-8度"}),
        ("3-5日、No.3", {"3日", "5日", "3"}),  # a dash is no sign
        ("78パーセントと2割と2割5分", {"78%", "20%", "25%"}),
        ("3分の1と1/2", {"1/3", "1/2"}),
        ("60キログラム、60kg、体重60キロ", {"60000g"}),
        ("3キロ、3km、3,000m", {"3000m"}),
        ("時速60キロ、60km/h、毎時60km、60キロ毎時", {"60000m/時"}),
        ("秒速10メートル、10m/s", {"36000m/時"}),
        ("3人に1人", {"1/3"}),
        ("3人に1人分の弁当", {"3人", "1人"}),
        ("1時間30分、90分、1時間半", {"5400秒"}),
        ("10〜20人", {"10人", "20人"}),
        ("1. 清水寺\n2) 東大寺\n③奈良公園", set()),  # a list's own numbers
        ("1.5倍\n2.5倍", {"1.5倍", "2.5倍"}),
        ("秒速10メートル、時速36km", {"36000m/時"}),
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
        ("64年10月1日と09年4月", {"1964-10-01", "2009-04"}),
        ("3 p.m.", {"T15:00"}),
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
        ("1853年（嘉永6年）", {"1853"}),
        ("嘉永6年", {"1853"}),
        ("1868（明治元）年", {"1868"}),
        ("S56年とR1年", {"1981", "2019"}),
        ("紀元前221年", {"bc221"}),
        ("BC221と221 BC", {"bc221"}),
        ("西暦300年", {"300"}),
        ("90年代と10年代", {"1990s", "2010s"}),
        ("午後3時と15時", {"T15:00"}),
        ("15:30と午後3時半とPM3:30と3:30 p.m.", {"T15:30"}),
        ("午前0時と正午", {"T00:00", "T12:00"}),
        ("午後1時から3時", {"T13:00", "T15:00"}),
        ("3時", {"t3:00"}),  # before noon or after
        ("月曜と火曜日", {"月曜", "火曜"}),
    ],
)
def test_dates(text: str, expected: set[str]) -> None:
    assert facts(text).dates == expected
    assert not facts(text).numbers


def test_names_and_katakana_words() -> None:
    found = facts("東京都の山田太郎は、ヴァージン・オーストラリア航空のコンピューターを令和2年に使う。ア")
    assert found.names == {"東京都", "山田", "太郎"}  # katakana names are katakana words, eras are dates
    assert found.katakana == {"バージン", "オーストラリア", "コンピュータ"}
    assert facts("コンピュータ").katakana == facts("ｺﾝﾋﾟｭｰﾀｰ").katakana
    assert facts("ヴァイオリン").katakana == facts("バイオリン").katakana
    assert facts("ダ・ヴィンチ").katakana == facts("ダヴィンチ").katakana == {"ダビンチ"}
    assert not facts("ダ・ヴィンチ").names
    assert not facts("3776メートルとマイナス5度と78パーセント").katakana


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
        ("京都", ["東京都"], "names", 0.0),  # at a word's border
        ("東京都", ["京都"], "names", 0.0),
        ("富士川", ["富士山"], "names", 0.0),  # another class word is another thing
        ("富士市", ["富士山"], "names", 0.0),
        ("平安京", ["平安時代"], "names", 0.0),
        ("富士", ["富士山"], "names", 1.0),  # none may be the same
        ("大阪城", ["大阪"], "names", 0.0),
        ("78%", ["78パーセント"], None, 1.0),
        ("3776m", ["3,776メートル"], None, 1.0),
        ("3776", ["3,776メートル"], None, 1.0),  # the unit may be absent, not another
        ("3776人", ["3,776メートル"], None, 0.0),
        ("一つあり、ひとつ", ["1つ"], None, 1.0),
        ("一人で来た", ["1人"], None, 1.0),
        ("紀元221年", ["紀元前221年"], None, 0.0),
        ("6月15日", ["15日"], None, 1.0),
        ("3/11", ["3/11"], None, 1.0),
        ("3月11日", ["3/11"], None, 1.0),
        ("3/11", ["3月11日"], None, 1.0),
        ("五割", ["50%"], None, 1.0),
        ("半分", ["1/2"], None, 1.0),
        ("数千万", ["数百万"], None, 0.0),
        ("15時", ["午後3時"], None, 1.0),
        ("5時", ["午後3時"], None, 0.0),
        ("-5℃", ["5℃"], None, 0.0),
        ("1. 清水寺\n2. 東大寺", ["清水寺、東大寺"], None, 1.0),
        ("関ケ原", ["関ヶ原"], None, 1.0),
        ("東京", ["はい"], None, None),  # no facts to find
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
        ("17回", ["18回", "17回ですか"], None, 0.0),  # the question supports, too
        ("17回", ["18回", "17日ですか"], None, 1.0),
        ("15日", ["6月15日"], None, 0.0),
        ("1981年", ["1981年7月10日"], None, 0.0),
        ("1981年7月10日", ["1981年の7月10日"], None, 1.0),  # in two places: a known limit
        ("ダヴィンチ", ["レオナルド・ダ・ヴィンチ"], None, 0.0),
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
