"""The report: verdict, tables, escaping, highlighting, and the width of the terminal table."""

import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import HOSTILE, answers
from rich.cells import cell_len
from rich.console import Console

from eval.commands import compare_runs, score_file
from eval.metrics.catalogue import HEADLINE
from eval.predictions import Prediction, write_predictions
from eval.render.markdown import render_markdown
from eval.render.numbers import p_is, p_value, round_up
from eval.report.document import document
from eval.report.first_screen import Subject, three_rows
from eval.report.samples import chosen, quoted
from eval.report.sentences import Found, delta_word, endings, evidence, found_on, next_step, saying, sentence
from eval.report.terminal import print_table
from eval.report.view import at_odds
from eval.scoring.results import ON_CONTEXT, Difference, Limit, Results, Scores
from eval.scoring.score import score
from eval.statistics.estimates import Estimate
from sft.data.records import CATEGORIES, Example
from sft.generation.settings import FinishReason
from sft.page.blocks import Heading, Paragraph, Span, Table
from sft.page.html import marked, render_html
from sft.system import texts

VOID = {"meta", "wbr", "br"}
SUBJECT = Subject("calm", "cyberagent/open-calm-7b", "faq.csv", "2026-11-29")


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", "en")


def markdown(results: Results, predictions: list[Prediction]) -> str:
    return render_markdown(document(results, predictions, SUBJECT))


def html(results: Results, predictions: list[Prediction]) -> str:
    return render_html(document(results, predictions, SUBJECT))


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    return [*answers("base", 1), *answers("tuned", 3)]


@pytest.fixture(scope="module")
def results(predictions: list[Prediction]) -> Results:
    training = {"t1": "東京かもしれない、と思う。", "t2": "東京3です。1981年。"}
    return score(predictions, resamples=200, training_outputs=training)


@pytest.fixture(scope="module")
def page(results: Results, predictions: list[Prediction]) -> str:
    return html(results, predictions)


class Tags(HTMLParser):
    """Checks that tags close in order and collects them with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_sections_come_in_a_readers_order(results: Results, predictions: list[Prediction]) -> None:
    blocks = document(results, predictions, SUBJECT)
    sections = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    assert sections == [
        "Figures",
        "Open QA",
        "Context QA",
        "Other categories",
        "Repetition penalty",
        "Behaviour",
        "Samples",
        "Provenance",
        "Caveats",
    ]
    assert isinstance(blocks[1], Paragraph)
    report = markdown(results, predictions)
    for part in ("best floor", "oracle", "tuned, normalised", "p (Holm)", "python -m eval sweep RUN", "facts of the"):
        assert part in report


def test_html_is_one_well_formed_file_that_needs_nothing_else(page: str) -> None:
    tags = Tags(page)
    assert not tags.open
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe", "object"}
    for name, attributes in tags.seen:
        assert not any(key.startswith("on") for key in attributes)
        assert "src" not in attributes
        if name == "a":
            assert (attributes["href"] or "").startswith("#") or attributes["href"] == "rows.html"
    assert tags.seen[0] == ("html", {"lang": "en"})
    assert "url(http" not in page
    assert "@import" not in page


def test_every_table_scrolls_in_a_box_of_its_own(page: str) -> None:
    tags = Tags(page)
    tables = [inside for (name, _), inside in zip(tags.seen, tags.inside, strict=True) if name == "table"]
    assert len(tables) > 5
    assert all(inside[-1] == "div" for inside in tables)
    assert page.count('<div class="table" tabindex="0">\n<table>') == len(tables)
    assert ".table { overflow-x: auto;" in page


def test_an_answer_that_is_markup_is_shown_and_not_run(page: str, results: Results) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;�[2J" in page
    assert not [c for c in page if ord(c) < 32 and c != "\n"]


def test_the_same_results_give_the_same_bytes(results: Results, predictions: list[Prediction], page: str) -> None:
    assert html(results, predictions) == page
    assert markdown(results, predictions) == markdown(results, predictions)


def test_markdown_tables_are_rectangular(results: Results, predictions: list[Prediction]) -> None:
    tables: list[list[str]] = [[]]
    for line in markdown(results, predictions).splitlines():
        if line.startswith("| "):
            tables[-1].append(line.replace("\\|", ""))
        elif tables[-1]:
            tables.append([])
    for table in filter(None, tables):
        assert len({line.count("|") for line in table}) == 1, table[0]


def test_model_text_stays_inside_its_fence(results: Results, predictions: list[Prediction]) -> None:
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
    found = [Prediction("a|b<script>", row, "", "東京", "eos", 1, 1, {"x": "<i>|"})]
    results = score(found, resamples=50)
    for text in (markdown(results, found), html(results, found)):
        assert not [tag for tag in ("<script>", "<b>", "<i>") if tag in text]
    assert "a\\|b&lt;script>" in markdown(results, found)
    print_table(results, SUBJECT, Console(file=io.StringIO()))


def test_markdown_escapes_links_and_keeps_intervals() -> None:
    blocks = [Paragraph(("[0.1, 0.2] [リンク](http://example.org) *強調* ",))]
    assert render_markdown(blocks) == "[0.1, 0.2] \\[リンク\\](http://example.org) \\*強調\\* \n"


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "p_holm", "words", "odd"),
    [
        (0.1, 0.01, 0.2, 0.001, 0.01, "better", False),
        (-0.1, -0.2, -0.01, 0.001, 0.01, "worse", False),
        (-0.1, -0.2, -0.01, 0.01, None, "worse", False),
        (0.1, -0.1, 0.2, 0.5, 0.5, "not shown", False),
        # The test decides, whatever the interval looks like; and where that would say otherwise, the evidence says so.
        (0.1, 0.01, 0.2, 0.02, 0.2, "not shown", True),
        (-0.067, -0.13, -0.013, 0.08, None, "not shown", True),
        (0.1, 0.0, 0.2, 0.01, 0.04, "better", True),
        (0.1, None, None, None, None, "too few", False),
    ],
)
def test_one_test_decides_what_a_difference_is_called(
    mean: float, low: float | None, high: float | None, p: float | None, p_holm: float | None, words: str, odd: bool
) -> None:
    delta = Difference(mean, low, high, 8, 0, p, p_holm, "sign-flip")
    assert delta_word(delta) == words
    assert at_odds(delta) == odd
    said = evidence(delta, HEADLINE)
    assert ("would have said otherwise" in said) == odd
    assert ("Holm's corrected p" if p_holm else "p (not corrected)") in said


def test_two_rows_that_agree_show_no_difference() -> None:
    delta = Difference(0.1, 0.01, 0.19, 2, 0, 0.5, 1.0, "sign-flip")
    assert delta_word(delta) == "not shown"
    assert "would have said otherwise" in evidence(delta, HEADLINE)


def asked(delta: Difference, floor: float = 0.1, right: tuple[float, float] = (0.2, 0.3), **fields: bool) -> Found:
    """What is found on context questions with this difference; the tuned model scores .3."""
    before, after, *shares = (Estimate(mean, None, None, delta.n, 0) for mean in (0.3 - (delta.mean or 0), 0.3, *right))
    return Found("context", delta.n, before, after, (shares[0], shares[1]), delta, Limit(floor, "echo"), **fields)


def change(mean: float, reach: float, p: float, n: int = 100, rows: int | None = None) -> Difference:
    return Difference(mean, mean - reach, mean + reach, n, 0, p, p, "sign-flip", rows_to_show=rows)


ONE_ROW = Difference(0.1, None, None, 1, 0, None, None, "sign-flip")


@pytest.mark.parametrize(
    ("found", "said", "words", "step"),
    [
        (asked(change(0.1, 0.05, 0.01)), "better", "better (character F1 0.200 → 0.300, 100", "use the tuned model"),
        (
            asked(change(0.1, 0.05, 0.01), floor=0.4),
            "better",
            "less than a baseline without understanding scores",
            "Do not use it for these",
        ),
        (asked(change(0.1, 0.05, 0.01), right=(0.3, 0.2)), "better", "better (", "fewer answers are right"),
        (asked(change(-0.1, 0.05, 0.01)), "worse", "worse (character F1 0.400 → 0.300", "lower training.learning_rate"),
        (asked(change(-0.1, 0.05, 0.01), penalty_on_context=True), "worse", "worse (", "penalty_scope=generated"),
        (
            asked(change(0.1, 0.2, 0.4, 18, 193)),
            "too_few",
            "18 questions are too few; a difference of this size takes about 200 or more",
            "on 200 such",
        ),
        (asked(change(0.01, 0.2, 0.9, 18, 31000)), "not_shown", "(18 questions).", "Treat the two as equal for now"),
        (asked(change(0.01, 0.03, 0.9, 100, 900)), "too_close", "more than 0.05 is unlikely", "Treat the two as equal"),
        (asked(change(0.01, 0.03, 0.9, 8, 90)), "too_few", "8 questions are too few", "90 such"),
        (asked(change(0.1, 0.05, 0.2, 8, 5)), "not_shown", "not shown to be better", "evaluate again on other"),
        (asked(change(0.0, 0.2, 1.0, 8)), "not_shown", "not shown to be better", "on 200 such questions or more"),
        (asked(change(0.0, 0.0, 1.0)), "unchanged", "no difference at all", "whether the answers differ at all"),
        (asked(ONE_ROW), "no_spread", "1 question cannot show", "on 200 such questions"),
    ],
)
def test_a_sentence_to_repeat_and_what_to_do(found: Found, said: str, words: str, step: str) -> None:
    assert saying(found) == said
    assert words in sentence(found)
    assert step in next_step(found)


def test_a_group_without_rows_or_without_a_pair_is_said_so(results: Results, predictions: list[Prediction]) -> None:
    one = [answer for answer in predictions if answer.system == "tuned" and answer.example.group == "open"]
    alone = score(one, resamples=50)
    assert "there is nothing to compare it with" in sentence(found_on(alone, "open"))
    assert "python -m eval compare A B" in next_step(found_on(alone, "open"))
    assert sentence(found_on(alone, "context")) == "Questions about a context: none among the test rows."
    assert next_step(found_on(alone, "context")) == ""


def test_the_verdict_says_when_a_better_system_is_still_below_a_floor() -> None:
    question = "東京都の人口は何人ですか"
    rows = [Example(str(at), question, "", f"東京都の人口は{at}人です", "open_qa") for at in range(30)]

    def system(name: str, text: str) -> list[Prediction]:
        return [Prediction(name, row, "", text, "eos", 1, 1, {}) for row in rows]

    found = score(system("base", "わからない") + system("tuned", "東京"), resamples=200)
    assert found.floors["echo"].groups["open"]["character_f1"].mean > 0.6
    assert "better (" in sentence(found_on(found, "open"))
    assert "is less than a baseline without understanding scores (" in sentence(found_on(found, "open"))
    above = score(system("base", "わからない") + system("tuned", "東京都の人口は人です"), resamples=200)
    assert "understanding" not in sentence(found_on(above, "open"))


def test_the_first_screen_comes_before_everything_folded(page: str, results: Results) -> None:
    first, *folds = page.split("<details>")
    assert len(folds) == 9
    assert "<title>calm: before and after tuning</title>" in page
    about = "base model: cyberagent/open-calm-7b · data: faq.csv · trained on 2026-11-29 · 32 test questions: "
    assert f"<p>{about}8 questions without a context" in first
    assert sentence(found_on(results, "open")).split(" (")[0] in first
    means = [results.systems[s].of(ON_CONTEXT, HEADLINE).mean for s in ("base", "tuned")]
    assert all(f"<td>{mean:.3f}</td>" in first for mean in means)
    assert [first.count(f"<h4>{title}: ") for title in ("Largest gain", "Largest loss", "Typical")] == [1, 0, 1]
    assert "<figure>" not in first
    assert all("<details>" not in fold and 'id="s' in fold for fold in folds)


def test_the_first_screen_and_the_terminal_speak_japanese(
    results: Results, predictions: list[Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_asked", "ja")
    page = render_html(document(results, predictions, SUBJECT), "ja")
    out = io.StringIO()
    print_table(results, SUBJECT, Console(file=out, width=400))
    for shown in (re.sub("<.*?>", "", page.partition("<details>")[0].partition("</style>")[2]), out.getvalue()):
        assert "calm: 学習前と学習後の比較" in shown
        assert "ベースモデル: cyberagent/open-calm-7b · データ: faq.csv · 学習開始: 2026-11-29" in shown
        assert sentence(found_on(results, "context")) in shown
        assert "次にすること：" in shown
        known = {*CATEGORIES, "calm", "cyberagent", "open", "faq.csv", "Holm", "docs", "evaluation.md", "eval.data"}
        known |= {"data.test_share", "generation.max_new_tokens", "training.num_train_epochs", "script", "alert"}
        assert not set(re.findall("[A-Za-z_.]{4,}", shown)) - known
    assert "<summary><h2>回答例</h2></summary>" in page


def test_three_answers_are_chosen_by_rule_and_no_row_twice() -> None:
    gains = {"a": -0.4, "b": 0.0, "c": 0.1, "d": 0.1, "e": 0.9}
    assert three_rows(gains, paired=True) == {"Largest gain": "e", "Largest loss": "a", "Typical": "c"}
    assert three_rows({"a": 0.0, "b": 0.0}, paired=True) == {"Typical": "a"}
    assert three_rows({"a": 0.2}, paired=True) == {"Largest gain": "a"}
    assert three_rows({"a": 0.2, "b": 0.1}, paired=False) == {"Highest": "a", "Lowest": "b"}
    assert three_rows({}, paired=True) == {}


def test_what_is_folded_prints_and_markdown_folds_nothing(
    page: str, results: Results, predictions: list[Prediction]
) -> None:
    assert "details::details-content { display: block; content-visibility: visible; }" in page
    report = markdown(results, predictions)
    assert "<details>" not in report
    assert "\n## Samples\n" in report
    assert report.startswith("# calm: before and after tuning\n")


def test_what_is_absent_reads_not_available(results: Results, predictions: list[Prediction]) -> None:
    untested = {
        group: named | {"character_f1": dataclasses.replace(named["character_f1"], p_holm=None)}
        for group, named in results.deltas.groups.items()
    }
    bare = dataclasses.replace(
        results, ceilings={}, normalised={}, reference=Scores({}, {}), interaction={}, overlap={}, signatures={},
        floors={}, deltas=dataclasses.replace(results.deltas, groups=untested),
    )  # fmt: skip
    for text in (markdown(bare, predictions), html(bare, predictions)):
        assert "n/a" in text
        assert "None" not in text.replace("None.", "")
    print_table(bare, SUBJECT, Console(file=io.StringIO()))


def test_one_system_and_one_row_can_be_reported() -> None:
    row = Example("1", "首都は？", "", "東京", "open_qa")
    found = [Prediction("anybody", row, "", "", "error", 1, 0, {})]
    results = score(found, resamples=50)
    report = markdown(results, found)
    assert "character F1 0.000 (1 question); there is nothing to compare it with." in report
    assert "baseline without understanding scores " in report
    assert "**Questions about a context: none among the test rows.**" in report
    assert "(empty)" in report
    assert "Needs the systems base and tuned." in report
    assert "(empty)" in html(results, found)
    print_table(results, SUBJECT, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("text", "context", "spans"),
    [
        ("答えは東京タワーです", "高さ333mの東京タワーは", ["東京タワー"]),
        ("東京と大阪", "東京も大阪も", []),  # shorter than four characters
        ("あいうえおかきく", "かきくけこ。あいうえお", ["あいうえお"]),
        ("abcdabcd", "abcd", ["abcd", "abcd"]),
        ("", "文脈", []),
        ("文脈文脈", "", []),
        ("あ    い", "う    え", []),  # whitespace alone is nothing shared
    ],
)
def test_spans_shared_with_the_context(text: str, context: str, spans: list[str]) -> None:
    assert [text[start:end] for start, end in quoted(text, context)] == spans


def test_marks_go_around_escaped_text() -> None:
    assert marked("a<b>東京c", [Span(1, 6)]) == "a<mark>&lt;b&gt;東京</mark>c"
    assert marked("", []) == ""


def test_no_row_is_a_sample_twice_and_the_draw_is_seeded() -> None:
    scores = {str(n): {"base": 0.5, "tuned": 0.5 + (n - 20) / 100} for n in range(41)}
    worst, best, drawn = chosen(scores, 10, seed=0)
    assert worst == [str(n) for n in range(10)]
    assert best == [str(n) for n in range(40, 30, -1)]
    assert len({*worst, *best, *drawn}) == 30
    assert chosen(scores, 10, seed=0)[2] == drawn != chosen(scores, 10, seed=1)[2]


def test_answers_are_highlighted_where_they_quote_their_context() -> None:
    row = Example("1", "生まれた年は？", "彼は1981年7月に生まれた。", "1981年", "closed_qa")
    found = [Prediction("tuned", row, "", "1981年7月に生まれました", "eos", 1, 1, {})]
    page = html(score(found, resamples=50), found)
    assert '<div class="text" lang="ja" tabindex="0"><mark>1981年7月に生まれ</mark>ました</div>' in page
    assert "彼は<mark>1981年7月に生まれ</mark>た。" in page


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_table_fits_and_aligns(results: Results, width: int) -> None:
    out = io.StringIO()
    print_table(results, SUBJECT, Console(file=out, width=width))
    text = out.getvalue()
    assert "…" not in text
    lines = [line for line in text.splitlines() if (line.startswith("  ") and "_qa" in line) or ", all " in line]
    assert {cell_len(line) for line in lines} == {max(map(cell_len, lines))}
    assert max(map(cell_len, text.splitlines())) <= width
    assert len(lines) == 6


def test_japanese_system_names_do_not_break_the_terminal_table(predictions: list[Prediction]) -> None:
    renamed = answers("日本語の長い名前のモデル") + answers("別のモデル", 1)
    out = io.StringIO()
    print_table(score(renamed, resamples=50), SUBJECT, Console(file=out, width=80))
    lines = [line for line in out.getvalue().splitlines() if ", all" in line or "モデル" in line]
    assert "日本語の長…" in out.getvalue()
    assert max(map(cell_len, out.getvalue().splitlines())) <= 80
    assert lines


def test_a_strong_row_and_a_section_in_both_renderings() -> None:
    table = Table(["metric", "category", "n"], [["F1", "a_b", "1"], ["F1", "all", "2"]], 2, True, frozenset({1}))
    assert "| F1 | **all** | 2 |" in render_markdown([table])
    page = render_html([Heading(1, "題"), table])
    assert '<th scope="rowgroup" colspan="2"><span>F1</span></th>' in page
    assert 'a_<wbr>b</th><td>1</td></tr>\n<tr class="strong">' in page
    assert "<title>題</title>" in page


@pytest.mark.parametrize(("p", "shown"), [(None, "n/a"), (0.0004, "<.001"), (0.0123, ".012"), (1.0, "1.000")])
def test_p_values(p: float | None, shown: str) -> None:
    assert p_value(p) == shown


def test_a_p_that_is_a_bound_says_so() -> None:
    assert p_value(0.0017, True) == "≤.002"
    assert [p_is(0.0017, True), p_is(0.0001, True), p_is(0.012)] == ["≤ .002", "< .001", "= .012"]
    assert [round_up(rows) for rows in (7, 42, 123, 1234)] == [7, 42, 130, 1300]


def test_the_hostile_answer_is_among_the_samples(predictions: list[Prediction]) -> None:
    assert any(prediction.text == HOSTILE for prediction in predictions)


def ending(*reasons: FinishReason) -> list[Prediction]:
    """Answers of a tuned model, of which as many in a row end for each of the reasons."""
    found = answers("tuned", 4)
    each = len(found) // len(reasons)
    return [dataclasses.replace(one, finish_reason=reasons[n // each]) for n, one in enumerate(found)]


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (["eos"], None),
        (["eos", "eos", "stop", "eos"], None),
        (
            ["eos", "heading"],
            "of 32 answers (after) 16 ended by themselves, 16 went on with the template's next heading",
        ),
        (["eos", "length"], "16 were cut at the length limit. Raise generation.max_new_tokens where"),
        (["eos", "heading"], "has not learned to end. Train longer (training.num_train_epochs)"),
    ],
)
def test_few_endings_come_with_what_to_do(reasons: list[FinishReason], words: str | None) -> None:
    predictions = ending(*reasons)
    results = score(predictions, resamples=50)
    out = io.StringIO()
    print_table(results, SUBJECT, Console(file=out, width=400))
    for text in (markdown(results, predictions), out.getvalue()):
        assert ("Endings" in text) == bool(words)
        assert words is None or words in text


def test_an_untuned_model_is_not_expected_to_end() -> None:
    assert endings(score([dataclasses.replace(one, system="base") for one in ending("heading")], resamples=50)) == []


def test_score_writes_and_says_it_in_the_language_asked_for(
    tmp_path: Path, predictions: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "faq" / "eval" / "predictions.jsonl"
    file.parent.mkdir(parents=True)
    write_predictions(predictions, file)
    score_file([str(file), "--lang", "ja"])
    assert "faq: 学習前と学習後の比較" in capsys.readouterr().out
    assert '<html lang="ja">' in (file.parent / "report.html").read_text(encoding="utf-8")
    assert (file.parent / "report.md").read_text(encoding="utf-8").startswith("# faq: 学習前と学習後の比較\n")
    compare_runs([f"{file}:base", str(file), "--lang", "ja"])
    assert "文脈ありの質問：" in capsys.readouterr().out
