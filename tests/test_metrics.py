"""Metrics and normalisation on hand-computed Japanese cases, and against independent restatements."""

import json
import math
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

from eval.metrics.catalogue import BY_KEY, METRICS
from eval.metrics.likelihood import context_gain, reference_bits_per_character
from eval.metrics.overlap import character_f1, chrf, edit_similarity, exact_match, gold_contained, rouge_l
from eval.metrics.text import Word, normalise, tokens, words
from eval.render.markdown import fenced
from eval.statistics.estimates import bootstrap_means, cluster_numbers, paired_difference
from sft.system.visible import escaped, visible

DOLLY_JA = Path(__file__).parents[1].parent / "shared/data/dolly-ja.jsonl"

WRITTEN_PAIRS = [
    ("日本の首都は東京です。", "東京"),
    ("東京都の人口は約1400万人です。", "約1,400万人が東京都に住んでいます。"),
    ("いいえ。", "はい。"),
    ("りんご、りんご、りんご", "りんごとみかん"),
    ("", "東京"),
    ("ＡＢＣ　ｱｲｳ", "abc アイウ"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京。", "東京"),  # the final full stop goes
        ("東京。。\n", "東京"),  # also before a line break, also twice
        ("東京｡", "東京"),  # the half-width one is the same to NFKC
        ("東京。大阪。", "東京。大阪"),  # inside it stays
        ("東京！", "東京!"),  # other punctuation stays; NFKC makes it half-width
        ("「東京」", "「東京」"),
        ("ＪＲ　東日本", "jr 東日本"),  # full-width letters and the ideographic space
        ("ｶﾞﾗｽ", "ガラス"),  # half-width katakana, the voicing mark joined
        ("2019 年\t\n7月", "2019 年 7月"),  # runs of whitespace become one space
        ("あ\x00い", "あ い"),  # MeCab would stop reading at NUL
        ("あ\ud800い", "あ い"),  # a lone surrogate cannot be encoded
        ("東京．", "東京"),  # the full-width point behind Japanese, not behind a number
        ("3.", "3."),
        ("10〜20、10～20", "10~20、10~20"),  # one wave dash
        ("−5", "-5"),  # the minus sign
        ("東\u200b京\ufeff", "東京"),  # what is drawn nowhere
        ("葛\U000e0100城", "葛城"),  # variation selectors
        ("髙島", "高島"),
        ("関ケ原と3ケ月", "関ヶ原と3ヶ月"),
        ("ケーキ", "ケーキ"),
        ("。", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_tokens_are_mecab_surfaces_of_the_normalised_text() -> None:
    assert tokens("日本の首都は、東京です。\n") == ["日本", "の", "首都", "は", "、", "東京", "です"]
    assert tokens("あ\x00い") == ["あ", "い"]
    assert tokens(" 。 ") == []


def test_words_carry_their_part_of_speech_and_their_lemma() -> None:
    assert words("東京は三") == (
        Word("東京", "名詞", "固有名詞", "地名", "トウキョウ"),
        Word("は", "助詞", "係助詞", "*", "は"),
        Word("三", "名詞", "数詞", "*", "三"),
    )
    assert [words(text)[0].lemma for text in ("ねこ", "ネコ", "猫", "qzx")] == ["猫", "猫", "猫", "qzx"]


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("東京", "東京", 1.0),
        ("", "東京", 0.0),  # empty answer
        ("。\n", "東京", 0.0),  # empty after normalisation
        ("", "", 0.0),  # two empty texts share nothing
        ("東京", "", 0.0),
        ("大阪", "東京", 0.0),  # nothing shared
        ("東京都", "東京", 2 * 2 / (3 + 2)),
        ("日本の首都は東京です。", "日本の首都は東京", 2 * 8 / (10 + 8)),  # a near miss
        ("ＪＲ東京", "jr東京。", 1.0),  # width, case and the final full stop do not count
        ("東京、大阪", "東京大阪", 2 * 4 / (5 + 4)),  # other punctuation counts
        ("1981年7月10日", "1987年10月1日", 1.0),  # the order of characters does not
        ("ああい", "あいい", 2 * 2 / (3 + 3)),  # a bag, not a set: one あ and one い are shared
        ("東京都", ["大阪", "東京"], 0.8),  # the best reference counts
        ("東京", [], 0.0),
    ],
)
def test_character_f1(answer: str, references: str | list[str], expected: float) -> None:
    assert character_f1(answer, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("日本の首都は東京です。", "日本の首都は東京です", 1.0),
        ("", "東京", 0.0),
        ("", "", 0.0),
        ("大阪", "東京", 0.0),
        ("東京です", "東京", 2 * 1 / (2 + 1)),  # 東京|です
        ("日本の首都は東京です。", "首都は東京", 2 * 3 / (6 + 3)),  # 日本|の|首都|は|東京|です, 首都|は|東京
        (
            "東京は首都です。",
            "首都は東京です。",
            2 * 2 / (4 + 4),
        ),  # the order counts: は|です at most, or 東京|です
        ("ＡＢＣです", "abcです", 1.0),
        ("東京です", ["大阪", "東京です。"], 1.0),
        ("東京", [], 0.0),
    ],
)
def test_rouge_l(answer: str, references: str | list[str], expected: float) -> None:
    assert rouge_l(answer, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "references", "exact", "contained"),
    [
        ("東京", "東京。", 1, 1),
        ("東京です", "東京", 0, 1),
        ("京都", "東京", 0, 0),
        ("東京", "東京都", 0, 0),
        ("", "東京", 0, 0),
        ("", "", 0, 0),  # the empty text is contained in nothing
        ("東京", "。", 0, 0),
        ("１９８１年です。", "1981年", 0, 1),
        ("Ｔｏｋｙｏ", ["大阪", "tokyo"], 1, 1),
        ("「東京」", "東京", 0, 1),  # brackets stay
    ],
)
def test_exact_match_and_gold_contained(answer: str, references: str | list[str], exact: int, contained: int) -> None:
    assert exact_match(answer, references) == exact
    assert gold_contained(answer, references) == contained


def test_reference_bits_per_character() -> None:
    assert reference_bits_per_character(4 * math.log(2), "東京") == pytest.approx(2)
    assert reference_bits_per_character(0.0, "東京") == 0
    for nll, reference in ((None, "東京"), (1.0, ""), (math.nan, "東京"), (math.inf, "東京")):
        assert reference_bits_per_character(nll, reference) is None


def test_context_gain() -> None:
    ln2 = math.log(2)
    assert context_gain(6 * ln2, 2 * ln2, "東京") == pytest.approx(2)  # (6 − 2) bits over two characters
    assert context_gain(2 * ln2, 6 * ln2, "東京") == pytest.approx(-2)  # the context misleads
    assert context_gain(None, 1.0, "東京") is None
    assert context_gain(1.0, None, "東京") is None
    assert context_gain(math.inf, 1.0, "東京") is None


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("東京", "東京。", 1.0),
        ("", "東京", 0.0),
        ("", "", 0.0),  # saying nothing is never right
        ("東京", "", 0.0),
        ("大阪", "東京", 0.0),
        ("東京都", "東京", 1 - 1 / 5),  # one deletion among five characters
        ("都京東", "東京都", 2 * 1 / 6),  # order counts: the longest common subsequence is one character
        ("ＡＢＣ", "abd", 1 - 2 / 6),  # one deletion, one insertion
        ("1981年7月10日", "1987年10月1日", 2 * 7 / 20),  # 198年月1日 is common; the bag of characters gives 1.0
        ("東京都", ["大阪", "東京"], 0.8),
        ("東京", [], 0.0),
    ],
)
def test_edit_similarity(answer: str, references: str | list[str], expected: float) -> None:
    assert edit_similarity(answer, references) == pytest.approx(expected)


def f2(precision: float, recall: float) -> float:
    return 5 * precision * recall / (4 * precision + recall)


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("日本の首都は東京です。", "日本の首都は東京です", 1.0),
        ("", "東京", 0.0),
        ("", "", 0.0),
        ("東京", "", 0.0),
        ("大阪", "東京", 0.0),
        # Orders 1 and 2 exist in both; precision (2/2 + 1/1)/2, recall (2/3 + 1/2)/2.
        ("東京", "東京都", f2(1, (2 / 3 + 1 / 2) / 2)),
        ("東京都", "東京", f2((2 / 3 + 1 / 2) / 2, 1)),  # recall weighs more
        ("東 京", "東京", 1.0),  # whitespace does not count
        ("東京", ["大阪", "東京都"], f2(1, (2 / 3 + 1 / 2) / 2)),
        ("東京", [], 0.0),
    ],
)
def test_chrf(answer: str, references: str | list[str], expected: float) -> None:
    assert chrf(answer, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    "metric", [rouge_l, character_f1, edit_similarity, chrf, exact_match, gold_contained], ids=lambda m: m.__name__
)
def test_the_best_of_several_references_counts(metric) -> None:
    answer, references = "東京都の人口は約1400万人です。", ["大阪", "東京都の人口", "約1,400万人"]
    assert metric(answer, references) == max(metric(answer, reference) for reference in references)


def test_every_metric_has_a_signature_with_the_dictionary_named() -> None:
    assert len(BY_KEY) == len(METRICS) == len({metric.signature for metric in METRICS})
    assert "unidic-lite-" in BY_KEY["rouge_l"].signature
    assert "nfkc" in BY_KEY["character_f1"].signature


class _MecabTokenizer:
    """What rouge_score takes for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def jsquad_f1(answer: str, reference: str) -> float:
    """JGLUE's definition restated: lower case, final 。 off, whitespace to one space, bag of characters."""
    bags = [Counter(" ".join(text.lower().rstrip("。").split())) for text in (answer, reference)]
    shared = sum((bags[0] & bags[1]).values())
    if not shared:
        return 0.0
    precision, recall = shared / sum(bags[0].values()), shared / sum(bags[1].values())
    return 2 * precision * recall / (precision + recall)


def _assert_agreement(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rougeL"], tokenizer=_MecabTokenizer())
    for answer, reference in pairs:
        assert rouge_l(answer, reference) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure)
        nfkc = [unicodedata.normalize("NFKC", text).strip() for text in (answer, reference)]
        assert character_f1(answer, reference) == pytest.approx(jsquad_f1(*nfkc))
        first, second = normalise(answer), normalise(reference)
        shared = LCSseq.similarity(first, second)
        assert edit_similarity(answer, reference) == pytest.approx(
            2 * shared / (len(first) + len(second)) if first and second else 0
        )


def test_agreement_with_rouge_score_and_jsquad_on_written_rows() -> None:
    _assert_agreement(WRITTEN_PAIRS)


@pytest.mark.skipif(not DOLLY_JA.exists(), reason="the shared dolly-ja rows are not beside the repository")
def test_agreement_with_rouge_score_and_jsquad_on_200_real_rows() -> None:
    with DOLLY_JA.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    # Cut, because rouge_score's table grows with the product of the lengths.
    texts = [(row["input"] or row["instruction"])[:400] for row in rows[::75][:200]]
    references = [row["output"][:400] for row in rows[::75][:200]]
    assert len(texts) == 200
    _assert_agreement(list(zip(texts, references, strict=True)))


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_interval_agrees_with_scipy_on_unclustered_rows() -> None:
    values = np.random.default_rng(1).beta(2, 3, size=120)
    column = values[:, None]
    found = bootstrap_means(column, np.ones_like(column), cluster_numbers([""] * 120))[0]
    low, high = stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.ci_low == pytest.approx(low, abs=0.003)
    assert found.ci_high == pytest.approx(high, abs=0.003)


def test_duplicated_rows_of_one_context_do_not_narrow_the_interval() -> None:
    once = list(np.random.default_rng(1).random(40))
    column, weights = _column(once * 4), np.ones((160, 1))
    contexts = [f"文脈{row}" for row in range(40)] * 4
    clustered = bootstrap_means(column, weights, cluster_numbers(contexts))[0]
    rows = bootstrap_means(column, weights, cluster_numbers([""] * 160))[0]
    alone = bootstrap_means(_column(once), np.ones((40, 1)), cluster_numbers([""] * 40))[0]
    widths = [e.ci_high - e.ci_low for e in (clustered, rows, alone) if e.ci_high and e.ci_low]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.1)  # four times the rows, half the width, no more truth
    assert widths[0] == pytest.approx(widths[2])


def test_interval_is_none_for_one_cluster_and_mean_is_none_without_rows() -> None:
    one = bootstrap_means(_column([0.2, 0.4]), np.ones((2, 1)), cluster_numbers(["同じ", "同じ"]))[0]
    assert (one.mean, one.ci_low, one.ci_high, one.n) == (pytest.approx(0.3), None, None, 2)
    nothing = bootstrap_means(_column([math.nan] * 2), np.ones((2, 1)), cluster_numbers(["", ""]))[0]
    assert (nothing.mean, nothing.ci_low, nothing.n, nothing.missing) == (None, None, 0, 2)


def test_weighted_mean_is_a_ratio_of_sums_and_missing_rows_stay_out() -> None:
    values, weights = _column([1.0, 3.0, math.nan]), _column([3.0, 1.0, 9.0])
    found = bootstrap_means(values, weights, cluster_numbers(["", "", ""]))[0]
    assert (found.mean, found.n, found.missing) == (1.5, 2, 1)
    assert (found.ci_low, found.ci_high) == (1, 3)


def test_paired_difference_cancels_what_the_rows_share() -> None:
    base = np.random.default_rng(1).random((50, 1))
    clusters = cluster_numbers([""] * 50)
    found = paired_difference(base, base + 0.1, np.ones_like(base), clusters)[0]
    assert [found.mean, found.ci_low, found.ci_high] == pytest.approx([0.1] * 3)
    holed = base.copy()
    holed[0] = math.nan
    found = paired_difference(holed, base + 0.1, np.ones_like(base), clusters)[0]
    assert (found.mean, found.n, found.missing) == (pytest.approx(0.1), 49, 1)


def test_bootstrap_is_seeded_and_its_blocks_do_not_change_the_number_of_resamples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column, clusters = _column([0.1, 0.9, 0.4, 0.3]), cluster_numbers([""] * 4)

    def interval(seed: int) -> tuple[float | None, float | None]:
        found = bootstrap_means(column, np.ones((4, 1)), clusters, 999, seed)[0]
        return found.ci_low, found.ci_high

    once = interval(3)
    assert interval(3) == once
    monkeypatch.setattr("eval.statistics.estimates._CELLS_AT_ONCE", 40)
    assert interval(3) == once


def test_text_shown_to_people_cannot_break_out() -> None:
    assert visible("a\r\nb\x1b[31m\u202e\ud800\u2028c") == "a\nb�[31m��\nc"
    assert fenced("x ``` y ```` z", 99).startswith("`````text\n")
    assert fenced("", 9) == "```text\n(empty)\n```"
    assert "あい… (3 characters)" in fenced("あいう", 2)
    assert escaped("a|b\n<script>`[x]") == "a\\|b &lt;script>\\`\\[x\\]"
