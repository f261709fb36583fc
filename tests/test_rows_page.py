"""rows.html: every row in one file, filtered, ordered, searched in a browser; and scores that others compute from."""

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import browser
import pytest
from made_up import HOSTILE, answers

from eval.compare import compare_runs
from eval.metrics.catalogue import BY_KEY, CHARACTER_F1
from eval.predictions import BASE, TUNED, Prediction, write_predictions
from eval.report.rows_page import Look, rows_page
from eval.scoring.results import Results, ScoredRow, short_hash
from eval.scoring.score import score
from sft.system import texts

ATTACK = "</script><script>document.title='owned'</script><img src=https://example.com/x onerror=alert(1)><!--<script>"
EVALUATION = Path(__file__).parents[1] / "docs" / "evaluation.md"
LOOK = Look("faq: before and after tuning", CHARACTER_F1, BASE, (TUNED,))


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", "en")


def attacked(prediction: Prediction) -> Prediction:
    """The row open_qa-1 attacks with all of its texts; closed_qa-1 speaks in wide letters and beyond 16 bits."""
    row = prediction.example
    if row.index == "open_qa-1":
        row = dataclasses.replace(row, instruction=ATTACK, input=ATTACK, output=ATTACK, category=ATTACK, group="open")
        return dataclasses.replace(prediction, example=row, text=ATTACK + HOSTILE)
    if row.index == "closed_qa-1":
        history = (("user", "前の問い"),)
        row = dataclasses.replace(row, input="𠮷野家の𠮷田さんは、ＴＯＫＹＯ タワーにいる。", history=history)
        return dataclasses.replace(prediction, example=row, text="😀𠮷田さんです。")
    return prediction


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    return list(map(attacked, [*answers(BASE, 1, each=2), *answers(TUNED, 2, each=2)]))


@pytest.fixture(scope="module")
def results(predictions) -> Results:
    return score(predictions, resamples=50)


@pytest.fixture
def page(results, predictions) -> str:
    return rows_page(results.samples, predictions, LOOK)


class Elements(HTMLParser):
    """Every element with its attributes, and what stands in scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)


# Without a browser.


def test_the_page_holds_every_row_and_one_script_that_its_policy_knows(page, predictions):
    elements = Elements(page)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    policy = next(attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(elements.scripts[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "</" not in elements.scripts[0] + elements.scripts[1]
    assert not [tag for tag, attributes in elements.found if "src" in attributes or tag in ("img", "link", "iframe")]
    assert " object at 0x" not in page
    data = json.loads(elements.scripts[0])
    assert len(data["rows"]) == 16
    row = next(row for row in data["rows"] if row["title"] == "Row open_qa-1")
    assert row["question"] == row["reference"] == row["category"] == ATTACK
    assert row["answers"][1]["text"] == ATTACK + HOSTILE.replace("\x1b", "�")
    given = {(one.example.index, one.system): one for one in predictions}
    for row in data["rows"]:
        for system, answer in zip(data["systems"], row["answers"], strict=True):
            one = given[row["title"].removeprefix("Row "), system]
            assert (answer["finish"], answer["tokens"]) == (one.finish_reason, one.output_tokens)


def test_contexts_that_rows_share_stand_once(results, predictions):
    same = [dataclasses.replace(one, example=dataclasses.replace(one.example, input="同じ文脈")) for one in predictions]
    page = rows_page(results.samples, same, LOOK)
    data = json.loads(Elements(page).scripts[0])
    assert data["contexts"] == ["同じ文脈"]
    assert {row["context"] for row in data["rows"]} == {0}


def test_rows_of_one_system_are_not_called_better_or_worse(results, predictions):
    alone = [row for row in results.samples if row.system == TUNED]
    page = rows_page(alone, [one for one in predictions if one.system == TUNED], Look("x", CHARACTER_F1))
    assert 'name="outcome"' not in page
    assert 'value="fell"' not in page
    assert 'value="lowest"' in page


def test_rows_that_no_metric_can_score_have_no_outcome(results, predictions):
    keys = ("eos_rate", "length_ratio")
    rows = [dataclasses.replace(row, scores={key: row.scores[key] for key in keys}) for row in results.samples]
    page = rows_page(rows, predictions, Look("x", None, BASE, (TUNED,)))
    data = json.loads(Elements(page).scripts[0])
    assert {one["key"] for one in data["metrics"]} == {*keys}
    assert 'name="outcome"' not in page


def test_a_comparison_has_the_page_too_with_a_choice_among_the_others(tmp_path):
    for name, quality in {"甲": 1, "乙": 2, "丙": 3}.items():
        write_predictions(answers(TUNED, quality, each=1), tmp_path / f"{name}.jsonl")
    files = [str(tmp_path / f"{name}.jsonl") for name in ("甲", "乙", "丙")]
    compare_runs(files, tmp_path, resamples=20)
    page = (tmp_path / "rows.html").read_text(encoding="utf-8")
    assert '<option value="乙">乙</option><option value="丙">丙</option>' in page
    data = json.loads(Elements(page).scripts[0])
    assert (data["systems"], data["first"], data["others"]) == (["甲", "乙", "丙"], 0, [1, 2])
    assert 'href="comparison.html"' in page
    assert 'href="rows.html"' in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "](rows.html)" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


# Row scores.


@pytest.fixture(scope="module")
def scored(predictions, tmp_path_factory) -> Path:
    """A directory of results."""
    directory = tmp_path_factory.mktemp("scored")
    for name, content in score(predictions).texts().items():
        (directory / name).write_text(content, encoding="utf-8")
    return directory


def test_a_line_of_row_scores_says_how_it_came_about_and_nothing_of_the_texts(scored):
    lines = [json.loads(line) for line in (scored / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    results = json.loads((scored / "results.json").read_text(encoding="utf-8"))
    assert len(lines) == 32
    for line in lines:
        made = short_hash([results["settings"]["generation"][line["system"]], results["about"]])
        assert (line["settings"], line["signatures"]) == (made, short_hash(results["signatures"]))
        assert line["scores"].keys() == results["signatures"].keys() == BY_KEY.keys()
        assert line["weights"].keys() == {metric.key for metric in BY_KEY.values() if metric.weight}
    assert "首都" not in (scored / "samples.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["character_f1", "rouge_l"])
def test_the_lines_of_the_documentation_give_the_reports_number(scored, monkeypatch, key):
    (code,) = re.findall(r"```python\n(.*?)```", EVALUATION.read_text(encoding="utf-8"), re.DOTALL)
    assert code.count("character_f1") == 1
    code = code.replace("character_f1", key)
    monkeypatch.chdir(scored)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code, {})
    found = json.loads((scored / "results.json").read_text(encoding="utf-8"))["deltas"]["groups"]["context"][key]
    numbers = [float(number) for number in re.findall(r"-?\d\.\d+(?:e-\d+)?", said.getvalue())]
    assert numbers == pytest.approx([found["mean"], found["ci_low"], found["ci_high"]], abs=2e-6)


def test_weights_give_the_mean_of_a_ratio(scored):
    lines = [json.loads(line) for line in (scored / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    found = json.loads((scored / "results.json").read_text(encoding="utf-8"))["systems"][TUNED]["groups"]["open"]
    own = [line for line in lines if (line["system"], line["group"]) == (TUNED, "open")]
    for key in ("length_ratio", "reference_bits_per_character"):
        pairs = [(line["weights"][key], line["scores"][key]) for line in own]
        assert len({weight for weight, _ in pairs}) > 1
        mean = sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs)
        assert mean == pytest.approx(found[key]["mean"], abs=2e-6)


# In a browser.


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[browser.Tab]:
    program = browser.installed()
    if not program:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is installed")
    with browser.started(program, tmp_path_factory.mktemp("profile")) as running:
        yield running.tab()


@pytest.fixture
def opened(tab, page, tmp_path) -> str:
    """The address of the page, which is open."""
    (tmp_path / "rows.html").write_text(page, encoding="utf-8")
    tab.urls.clear()
    address = (tmp_path / "rows.html").as_uri()
    tab.open(address)
    tab.wait("document.querySelectorAll('article').length")
    yield address
    assert tab.errors == []
    assert {url.split("#")[0] for url in tab.urls} == {address}


TITLES = "[...document.querySelectorAll('article h2')].map(one => one.firstChild.textContent)"


def choose(tab: browser.Tab, name: str, value: str) -> None:
    """Choose an option, as a person would."""
    field = f"document.querySelector('[name={name}]')"
    tab.js(f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    time.sleep(0.3)


def shown(tab: browser.Tab) -> list[str]:
    return [title.removeprefix("Row ").split(" · ")[0] for title in tab.js(TITLES)]


def status(tab: browser.Tab) -> str:
    return tab.js("document.querySelector('#status').innerText")


def test_hostile_texts_are_read_and_not_run(tab, opened):
    assert tab.js("document.title") == "faq: before and after tuning, row by row"
    assert tab.js("document.querySelectorAll('img, script:not([id])').length") == 1
    assert ATTACK in tab.js("document.querySelector('#rows').textContent")
    assert tab.js("document.querySelectorAll('option').length") > 20


def test_filters_choose_rows_say_how_many_and_can_be_sent(tab, opened, results):
    changes: dict[str, float] = {}
    for row in results.samples:
        sign = 1 if row.system == TUNED else -1
        changes[row.index] = changes.get(row.index, 0) + sign * row.scores["character_f1"]
    assert status(tab).startswith("16 of 16 rows")
    assert sorted(shown(tab)) == sorted(changes)

    choose(tab, "outcome", "better")
    assert sorted(shown(tab)) == sorted(index for index, change in changes.items() if change > 0)
    choose(tab, "order", "rose")
    found = [changes[index] for index in shown(tab)]
    assert found == sorted(found, reverse=True)
    choose(tab, "outcome", "same")
    choose(tab, "category", "closed_qa")
    assert shown(tab) == [index for index, change in changes.items() if "closed_qa" in index and change == 0]
    assert "category: closed_qa" in status(tab)

    address = tab.js("location.href")
    assert unquote(address.split("#")[1]) == "category=closed_qa&outcome=same&order=rose"
    before = shown(tab)
    tab.open("about:blank")
    tab.open(address)
    tab.wait("document.querySelector('#status')?.innerText")
    assert shown(tab) == before
    tab.click("button[type=reset]")
    tab.wait("location.hash === '' && document.querySelectorAll('article').length === 16")
    tab.js("location.hash = 'group=context&category=none_such&size=7'")
    tab.wait("document.querySelectorAll('article').length === 6")


def test_search_folds_width_and_case_and_wants_every_word(tab, opened):
    for words, found in {"tokyo タワー": 1, "ｔｏｋｙｏ　ﾀﾜｰ": 1, "前の問い": 1, "東京 何処": 0}.items():
        tab.type("[name=q]", words)
        assert shown(tab) == ["closed_qa-1"] * found, words
    assert status(tab).startswith("0 of 16 rows · No row is like that.")


def test_what_answer_and_context_share_is_marked_beyond_16_bits_too(tab, opened):
    tab.type("[name=q]", "𠮷野家")
    assert tab.js("[...document.querySelectorAll('mark')].map(one => one.textContent)") == ["𠮷田さん"] * 3


def test_all_scores_of_a_row_are_there_when_asked_for(tab, opened):
    tab.js("document.querySelector('details').open = true")
    tab.wait("document.querySelector('details table')")
    header = tab.js("[...document.querySelectorAll('details th[scope=col]')].map(one => one.textContent)")
    assert header == ["metric", "before", "after", "change"]
    choose(tab, "metric", "chrf")
    assert "chrF" in tab.js("document.querySelector('article h2').innerText")


def test_a_phone_has_no_sideways_scrolling_and_every_control_a_name(tab, opened):
    tab.resize(390, 800)
    assert tab.js("document.documentElement.scrollWidth") <= 390
    assert tab.js("[...document.querySelector('form').elements].every(one => one.labels.length || one.textContent)")
    scrolls = "[...document.querySelectorAll('.text')].filter(one => one.scrollHeight > one.clientHeight)"
    assert tab.js(f"{scrolls}.length") > 0
    tab.wait(f"{scrolls}.every(one => one.tabIndex === 0 && one.ariaLabel)", 5)


def test_many_rows_come_a_page_at_a_time(tab, predictions, results, tmp_path):
    given = {(one.system, one.example.index): one for one in predictions}
    many: list[tuple[ScoredRow, Prediction]] = []
    for copy in range(20):
        for row in (row for row in results.samples if row.group != "context"):
            index, one = f"{row.index}-{copy}", given[row.system, row.index]
            again = dataclasses.replace(one, example=dataclasses.replace(one.example, index=index))
            many.append((dataclasses.replace(row, index=index), again))
    page = rows_page([row for row, _ in many], [one for _, one in many], LOOK)
    (tmp_path / "many.html").write_text(page, encoding="utf-8")
    tab.open("about:blank")
    tab.open((tmp_path / "many.html").as_uri())
    tab.wait("document.querySelectorAll('article').length === 25")
    assert status(tab).startswith("200 of 200 rows, 1 to 25 here")
    first = shown(tab)
    tab.click("#next")
    assert status(tab).startswith("200 of 200 rows, 26 to 50 here")
    assert not {*first} & {*shown(tab)}
    assert tab.js("document.activeElement.id") == "status"
    assert tab.js("location.hash") == "#page=2"
    choose(tab, "size", "100")
    assert len(shown(tab)) == 100
    assert tab.js("document.querySelector('#page').innerText") == "1 / 2"
