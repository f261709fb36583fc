"""Floors and the ceiling on written rows, and their values on the real ones."""

import random
from pathlib import Path

import pytest

from eval.metrics.floors import (
    CEILINGS,
    CONSTANT,
    FLOORS,
    lead,
    lead_as_long,
    oracle_sentence,
    question_sentence,
    shuffled,
)
from eval.metrics.overlap import character_f1, chrf, rouge_l
from eval.metrics.text import sentences
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("塔です。高い！本当？\n東京", ["塔です。", "高い！", "本当？", "東京"]),
        ("「塔です。」と言う。", ["「塔です。」と言う。"]),  # the sentence goes on after the quotation
        ("「本当？」と聞いた。はい。", ["「本当？」と聞いた。", "はい。"]),
        ("「塔です。」東京の塔です。", ["「塔です。」", "東京の塔です。"]),
        ("モーニング娘。は歌う。はい。", ["モーニング娘。は歌う。", "はい。"]),
        ("Yahoo! JAPANは会社です。はい!そうです。", ["Yahoo! JAPANは会社です。", "はい!", "そうです。"]),
        ("塔です．高さは3．5です．", ["塔です．", "高さは3．5です．"]),
        ("塔", ["塔"]),
        ("え！？はい。。", ["え！？", "はい。。"]),
        ("。\n", ["。\n"]),  # nothing but ends: the whole text
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def row(
    index: str, category: str = "closed_qa", context: str = "塔は高い。大阪にある。", output: str = "大阪"
) -> Example:
    return Example(index, "どこ？", context, output, category)


def test_every_floor_answers_every_row_or_none() -> None:
    examples = [row("1"), row("2", output="大阪にある"), row("3", "open_qa", ""), row("4", "closed_qa", " ")]
    for floor in (FLOORS | CEILINGS).values():
        assert len(floor(examples, 0)) == 4
    assert FLOORS["echo"](examples, 0) == ["どこ？"] * 4
    assert FLOORS["constant"](examples, 0) == [CONSTANT] * 4
    assert lead(examples) == ["塔は", "塔は", None, None]  # the median of 2, 5 and 2 characters
    assert question_sentence(examples) == ["塔は高い。", "塔は高い。", None, None]  # none shares more, so the first
    assert lead_as_long(examples, ["", "あい ", "うえ", "お"]) == ["", "塔は", None, None]
    assert oracle_sentence(examples) == ["大阪にある。", "大阪にある。", None, None]


def test_the_question_sentence_shares_most_with_the_question() -> None:
    context = "東京タワーは赤い。東京タワーの高さは333メートルです。大阪にも塔がある。"
    asked = Example("1", "東京タワーの高さは何メートルですか。", context, "333メートル", "closed_qa")
    assert question_sentence([asked]) == ["東京タワーの高さは333メートルです。"]


def test_shuffled_uses_every_reference_once_and_never_its_own() -> None:
    examples = [row(str(n), output=str(n)) for n in range(9)] + [row("x", "open_qa")]
    found = shuffled(examples, 3)
    assert sorted(filter(None, found)) == [str(n) for n in range(9)]
    assert all(answer != example.output for answer, example in zip(found, examples, strict=True))
    assert found[-1] is None
    assert found == shuffled(examples, 3)


MEASURED = {
    # category: floor → character F1, ROUGE-L, chrF over other 300 rows, measured before this module was written;
    # two samples of 300 differ by about .015
    "closed_qa": {"shuffled": (0.17, 0.11, 0.04), "echo": (0.32, 0.22, 0.15), "lead": (0.35, 0.24, 0.19)},
    "information_extraction": {"shuffled": (0.15, 0.08, 0.03), "echo": (0.22, 0.15, 0.09), "lead": (0.31, 0.20, 0.15)},
    "summarization": {"shuffled": (0.23, 0.13, 0.05), "echo": (0.21, 0.14, 0.08), "lead": (0.49, 0.35, 0.32)},
    "open_qa": {"shuffled": (0.16, 0.08, 0.04), "echo": (0.21, 0.14, 0.08)},
}
MEASURED["closed_qa"]["oracle_sentence"] = (0.50, 0.36, 0.32)
MEASURED["information_extraction"]["oracle_sentence"] = (0.49, 0.35, 0.33)
MEASURED["summarization"]["oracle_sentence"] = (0.50, 0.37, 0.30)


@pytest.mark.parametrize("category", MEASURED)
def test_values_on_real_rows_are_those_measured_before(real_rows: Path, category: str) -> None:
    rows = [example for example in examples_of(load_data(str(real_rows)).rows) if example.category == category]
    rows = random.Random(0).sample(rows, 300)
    for name, expected in MEASURED[category].items():
        answers = (FLOORS | CEILINGS)[name](rows, 0)
        pairs = [(answer or "", example.references) for answer, example in zip(answers, rows, strict=True)]
        for metric, value in zip((character_f1, rouge_l, chrf), expected, strict=True):
            assert sum(metric(*pair) for pair in pairs) / 300 == pytest.approx(value, abs=0.03), (name, metric)
