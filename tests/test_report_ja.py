"""A Japanese report is Japanese to its last fold: no page, figure or terminal table has a word of English prose."""

import dataclasses
import html
import io
import re
from pathlib import Path

import pytest
from made_up import GENERATION, answers
from rich.console import Console
from test_sweep_report import SETTINGS, answered

from eval.benchmarks.known import BENCHMARKS
from eval.compare import compare_runs
from eval.metrics.catalogue import BY_KEY
from eval.predictions import Prediction, write_predictions
from eval.render.markdown import render_markdown
from eval.report.benchmark import benchmark_document, print_benchmark
from eval.report.document import document
from eval.report.first_screen import Subject
from eval.report.sweep import print_sweep
from eval.report.terminal import print_table
from eval.scoring.only import only
from eval.scoring.results import Results
from eval.scoring.score import score
from eval.scoring.sweep import Sweep, SweepResults, score_sweep
from sft.data.records import CATEGORIES
from sft.page.blocks import Block, Figure
from sft.page.html import render_html
from sft.run.provenance import Provenance
from sft.system import texts

SUBJECT = Subject("calm", "cyberagent/open-calm-7b", "faq.csv", "2026-11-29")
ABOUT = Provenance(
    run="2026-11-29", base="cyberagent/open-calm-7b", base_commit="a" * 40, base_sha256=None,
    learned="b" * 64, template="c" * 64, loading={}, data=None, rows="d" * 64, systems=["base", "tuned"],
    generation=[GENERATION], seed=0, batch_tokens=8192, shots=2, brief=True,
    deviations=["checkpoint 20 in place of what the run ended with", "the template alpaca in place of alpaca-ja"],
)  # fmt: skip
ROWS = rf"\b({'|'.join(CATEGORIES)})-\d\b"
COMMANDS = r"python -m eval (sweep RUN|judge|RUN|compare A B)"
NAMES = {
    *BY_KEY, *CATEGORIES, *GENERATION, "max_new_tokens", "training.num_train_epochs", "generation.max_new_tokens",
    "training.learning_rate", "eval.data", "data.test_share", "docs/evaluation.md", "results.json", "rows.html",
    "predictions.jsonl",
    "calm", "cyberagent/open-calm-7b", "faq.csv", "alpaca", "alpaca-ja", "base", "tuned", "generated",
}  # fmt: skip
"""Keys, files and names of this test's own."""
WORDS = {
    "Holm", "Wilson", "EOS", "ROUGE-L", "chrF", "n-gram", "gram", "HTML", "greedy", "signature", "temperature", "run",
    "dolly-ja", "JSQuAD", "NIILC-QA", "JCommonsenseQA", "ELYZA-tasks-100", "JGLUE", "llm-jp-eval", "Nejumi", "char_f1",
    "flexeval", "Stability", "AI", "jp-stable", "lm-evaluation-harness", "acc", "AI王", "n/a", "all", "F1", "QA", "FAQ",
}  # fmt: skip
"""Terms and proper names that Japanese readers know in these letters."""


@pytest.fixture(autouse=True)
def japanese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", "ja")


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    return [*answers("base", 1), *answers("tuned", 3)]


@pytest.fixture(scope="module")
def results(predictions: list[Prediction]) -> Results:
    training = {"row 3": "東京かもしれない、と思う。", 'row 5 of sheet "FAQ"': "東京3です。1981年。"}
    return dataclasses.replace(score(predictions, resamples=50, training_outputs=training), about=ABOUT)


@pytest.fixture(scope="module")
def sweep() -> SweepResults:
    given = zip(SETTINGS, answered(), strict=True)
    found = [[dataclasses.replace(one, generation=setting) for one in system] for setting, system in given]
    return score_sweep(Sweep(SETTINGS, found), 50)


def english(shown: str) -> set[str]:
    """The English words of a text that are no names; what data and models say is cut out before."""
    plain = re.sub(f"{COMMANDS}|{ROWS}", "", html.unescape(shown))
    words = {word.strip("./-_") for word in re.findall(r"[A-Za-z][\w./-]+", plain, re.ASCII)}
    return {word for word in words if len(word) > 1} - NAMES - WORDS


def of_page(blocks: list[Block]) -> set[str]:
    """The English words of a document as HTML, figures and what is read of them included, and as Markdown."""
    page = render_html(blocks, "ja").partition("<body>")[2].replace("<wbr>", "")
    read = " ".join(re.findall(r'aria-label="(.*?)"', page))
    page = re.sub(r'(?s)<div class="text".*?</div>|<style.*?</style>', "", page)
    page = re.sub(r'(?s)<tr><th scope="row">[a-z_0-9]+</th>.*?</tr>', "", page)  # signatures and settings, by keys
    written = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", render_markdown(blocks))
    written = re.sub(r"(?m)^\| [a-z_0-9]+ \|.*$", "", written)
    return english(without_hashes(f"{re.sub('(?s)<.*?>', ' ', page)}\n{read}\n{written}"))


def without_hashes(shown: str) -> str:
    """The text without hashes and without the names and versions of libraries."""
    return re.sub(r"バージョン: .*|([a-d])\1{11}", "", shown)


def test_a_report_with_all_that_it_can_hold(
    results: Results, predictions: list[Prediction], sweep: SweepResults
) -> None:
    blocks = document(results, predictions, SUBJECT, sweep)
    assert sum(isinstance(block, Figure) for block in blocks) == 6
    assert of_page(blocks) == set()
    page = render_html(blocks, "ja")
    for words in (
        "文字F1（character_f1）",
        "最良ベースライン（学習後）",
        "学習後 − 学習前",
        "チェックポイント20の重み",
    ):
        assert words in page


def test_a_report_of_little(predictions: list[Prediction]) -> None:
    alone = [one for one in predictions if one.system == "tuned" and one.example.group == "open"]
    assert of_page(document(score(alone, resamples=50), alone, Subject("calm"))) == set()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark(name: str, predictions: list[Prediction]) -> None:
    benchmark = BENCHMARKS[name]
    group = "context" if name == "jsquad" else "open"
    rows = [one for one in predictions if one.example.group == group]
    found = dataclasses.replace(score(rows, resamples=50), about=ABOUT)
    found = found if benchmark.scored else only(found, benchmark.metrics)
    assert of_page(benchmark_document(found, rows, SUBJECT, benchmark)) == set()
    out = io.StringIO()
    print_benchmark(found, rows, SUBJECT, benchmark, Console(file=out, width=400))
    assert english(out.getvalue()) == set()


@pytest.mark.parametrize("systems", ["AB", "ABC"])
def test_a_comparison(systems: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(systems):
        (tmp_path / name / "eval").mkdir(parents=True)
        write_predictions(answers("tuned", number + 1)[number:], tmp_path / name / "eval" / "predictions.jsonl")
    compare_runs([str(tmp_path / name) for name in systems], tmp_path / "found", 50)
    page = (
        (tmp_path / "found" / "comparison.html").read_text(encoding="utf-8").partition("<body>")[2].replace("<wbr>", "")
    )
    rows = re.sub('(?s)<tr><th scope="row">[a-z_0-9]+</th>.*?</tr>', "", page)
    assert english(re.sub("(?s)<.*?>", " ", rows)) == set()
    assert "Aとの比較" in page
    *printed, last = capsys.readouterr().out.replace(str(tmp_path), "").splitlines()
    assert english("\n".join(printed)) == set()
    assert "すべての指標です" in last


def test_terminal_tables(results: Results, sweep: SweepResults) -> None:
    out = io.StringIO()
    console = Console(file=out, width=400)
    print_table(results, SUBJECT, console)
    print_sweep(sweep, console)
    assert english(out.getvalue()) == set()
    assert "学習後の文字F1（repetition_penalty, repetition_penalty_scope別）" in out.getvalue()


def test_a_word_of_english_is_found() -> None:
    assert english("文字F1（character_f1） best floor, 学習後") == {"best", "floor"}
