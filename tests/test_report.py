"""The report: verdict, tables, escaping, and the width of the terminal table."""

import copy
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from eval.report import markdown, print_table, verdict
from eval.score import score
from sft.records import CATEGORIES, CONTEXT, Example, Prediction

HOSTILE = "````\n# 見出し\n<script>alert(1)</script>\x1b[2J"
GENERATION = {"repetition_penalty": 1.2, "repetition_penalty_scope": "generated", "temperature": 0.7}


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    answers = []
    for category in CATEGORIES:
        for number in range(4):
            context = f"{category}の文脈{number}。" * 60 if category in CONTEXT else ""
            row = Example(f"{category}-{number}", "首都はどこですか？", context, f"東京{number}です。", category)
            tuned = {0: row.output, 1: HOSTILE}.get(number, "東京です。")
            for system, text in (("base", "東京かもしれない"), ("tuned", tuned)):
                answers.append(Prediction(system, row, "質問", text, "eos", 9, 4, GENERATION, reference_nll=9.0))
    return answers


@pytest.fixture(scope="module")
def results(predictions: list[Prediction]) -> dict[str, Any]:
    return score(predictions, resamples=500)


def test_markdown_has_every_section(results: dict[str, Any], predictions: list[Prediction]) -> None:
    report = markdown(results, predictions)
    headings = [line for line in report.splitlines() if line.startswith(("# ", "## ", "### "))]
    assert headings[:7] == [
        "# Evaluation by task category",
        "## Open QA",
        "## Context QA",
        "## Other categories",
        "## Behaviour",
        "## Samples",
        "### Best gains in character F1",
    ]
    assert "Repetition penalty and its scope: base 1.2 over generated; tuned 1.2 over generated." in report
    assert "floor: echo" in report
    assert "translated separately" in report
    assert report.count("#### Row ") == 10
    assert report == markdown(results, predictions)


def test_tables_are_rectangular(results: dict[str, Any], predictions: list[Prediction]) -> None:
    tables: list[list[str]] = [[]]
    for line in markdown(results, predictions).splitlines():
        if line.startswith("| "):
            tables[-1].append(line.replace("\\|", ""))
        elif tables[-1]:
            tables.append([])
    for table in filter(None, tables):
        assert len({line.count("|") for line in table}) == 1, table[0]


def test_model_text_stays_inside_its_fence(results: dict[str, Any], predictions: list[Prediction]) -> None:
    report = markdown(results, predictions)
    assert "\x1b" not in report
    assert "`````text\n````\n# 見出し\n<script>alert(1)</script>�[2J\n`````" in report
    fence = ""
    for line in report.splitlines():
        if not fence and line.startswith("```"):
            fence = line.removesuffix("text")
        elif line == fence:
            fence = ""
        elif "<script>" in line:
            assert fence
    assert not fence


def test_hostile_names_are_escaped() -> None:
    row = Example("1|<b>", "首都は？", "", "東京", "open_qa")
    answers = [Prediction("a|b<script>", row, "", "東京", "eos", 1, 1, {"x": "<i>|"})]
    found = score(answers, resamples=50)
    report = markdown(found, answers)
    assert not [tag for tag in ("<script>", "<b>", "<i>") if tag in report]
    assert "a\\|b&lt;script>" in report
    print_table(found, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.2, "no difference that 8 rows can show"),
        (None, None, "not decidable from 8 rows"),
    ],
)
def test_verdict_in_words(results: dict[str, Any], low: float | None, high: float | None, words: str) -> None:
    changed = copy.deepcopy(results)
    changed["deltas"]["groups"]["open"]["character_f1"] |= {"ci_low": low, "ci_high": high}
    line = verdict(changed, "open")
    assert f"**{words}**" in line
    assert "\n" not in line


def test_one_system_and_one_row_can_be_reported() -> None:
    row = Example("1", "首都は？", "", "東京", "open_qa")
    answers = [Prediction("anybody", row, "", "", "error", 1, 0, {})]
    found = score(answers, resamples=50)
    report = markdown(found, answers)
    assert "anybody 0.000 [–]; best floor" in report
    assert "**Context QA**: no rows." in report
    assert "(empty)" in report
    assert "n/a" in report
    print_table(found, Console(file=io.StringIO()))


@pytest.mark.parametrize("width", [100, 120])
def test_terminal_table_fits_and_aligns(results: dict[str, Any], width: int) -> None:
    out = io.StringIO()
    print_table(results, Console(file=out, width=width))
    text = out.getvalue()
    assert "…" not in text
    rows = [line for line in text.splitlines() if "_qa" in line or ", all" in line]
    assert {cell_len(line) for line in rows} == {max(map(cell_len, rows))}
    assert max(map(cell_len, rows)) <= width
    assert len(rows) == 6
