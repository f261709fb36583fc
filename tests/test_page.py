"""The page of a run, end to end in a browser: typed, streamed, stopped, refused, narrow, rated, and by two people."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

from sft.ask import page as pages
from sft.ask.asker import Asker, Question
from sft.ask.request import check_address, check_arguments
from sft.config.load import data_section
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.run.feedback import RATINGS, ROWS, Rating, rate, read_ratings
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> **太字** [x](javascript:alert(1)) ${1+1} {{1}}"
ASKED = {"instruction": "首都は?", "input": "日本の首都は東京です。", "said": "東京", "model": "tuned"}


# Without a browser.


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"host": "0.0.0.0"}, "--host and --password go together"),
        ({"password": "秘密"}, "--host and --password go together"),
        ({"host": "0.0.0.0", "password": " "}, "--password is empty"),
        ({"port": 0}, "between 1 and 65535"),
        ({"host": "203.0.113.1", "password": "秘密"}, "--host 203.0.113.1: is no address of this machine"),
        ({"base": True}, "both models"),
        ({"web": False, "port": 80}, "give --web too"),
    ],
)
def test_the_page_is_for_this_machine_unless_a_password_is_set(given, problem):
    usual = dict.fromkeys(("questions", "output", "instruction", "host", "password", "port", "checkpoint", "both"))
    with pytest.raises(UserError, match=problem):
        check_arguments(argparse.Namespace(**{**usual, "input": "", "web": True, "base": False, **given}))


def test_ratings_become_rows_that_data_path_reads_and_are_counted(tmp_path, program):
    good = Rating(**ASKED, rating="good")
    rate(tmp_path, good, None)
    rate(tmp_path, Rating(**ASKED | {"instruction": "山は?"}, rating="bad"), None)
    rate(tmp_path, Rating(**ASKED | {"instruction": "川は?"}, rating="good", cut_off=True), None)  # no row to learn
    (tmp_path / ROWS).open("a").write('{"instruction": "手で", "output": "書いた行"}')
    corrected = Rating(**ASKED, rating="corrected", correction="東京です。", category="地理")
    rate(tmp_path, corrected, good)
    rows = list(examples_of(load_data(data_section([str(tmp_path / ROWS)], []).sources).rows))
    assert [(row.output, row.category) for row in rows] == [("書いた行", ""), ("東京です。", "地理")]
    assert [rating.rating for rating in read_ratings(tmp_path)] == ["bad", "good", "corrected"]
    counted = program("eval.__main__", "rate", "--feedback", tmp_path)
    assert counted.returncode == 0, counted.stderr
    assert "rated: tuned" in counted.stdout
    assert "saw whose answer it was" in counted.stdout
    with pytest.raises(UserError, match="no usable row"):  # bad answers are not learned by mistake
        load_data(data_section([str(tmp_path / RATINGS)], []).sources)
    (tmp_path / RATINGS).open("a").write("{}\n")
    assert "ratings.jsonl:4: not a rating" in program("eval.__main__", "rate", "--feedback", tmp_path).stderr


def test_rows_that_somebody_saved_otherwise_are_a_line_and_stay(tmp_path):
    rating = Rating(instruction="首都は？", input="", said="東京\u2028です", model="tuned", rating="good")
    rate(tmp_path, rating, None)
    rate(tmp_path, rating.model_copy(update={"rating": "bad"}), rating)
    assert (tmp_path / ROWS).read_text(encoding="utf-8") == ""
    (tmp_path / ROWS).write_text('{"instruction": "問い"}\n', encoding="shift_jis")
    before = [(tmp_path / name).read_bytes() for name in (ROWS, RATINGS)]
    with pytest.raises(UserError, match=r"feedback.jsonl: is not UTF-8; save it as that"):
        rate(tmp_path, rating, None)
    assert [(tmp_path / name).read_bytes() for name in (ROWS, RATINGS)] == before


def test_what_is_marked_is_the_text_itself():
    pieces = pages.marks("答えは午後8時です。", "午前9時から午後8時まで")
    assert "".join(piece for piece, _ in pieces) == "答えは午後8時です。"
    assert [piece for piece, mark in pieces if mark] == ["午後8時"]
    assert pages.marks("", "文脈") == []


def test_two_people_stop_only_their_own(monkeypatch, trained_run):
    from sft.generation.answerer import load_answerer, open_run

    asker = Asker(load_answerer(open_run(trained_run)))
    words = ["generation.max_new_tokens=40"]
    found: dict[str, list] = {}

    def ask(person: str) -> None:
        asker.begin(person)
        found[person] = list(asker.answers(person, Question(f"{person}の問い", "", ("tuned", "base"), words)))

    people = [threading.Thread(target=ask, args=(person,)) for person in ("甲", "乙")]
    for thread in people:
        thread.start()
    while not any(found.values()) and any(thread.is_alive() for thread in people):
        asker.stop("乙")
        time.sleep(0.01)
    for thread in people:
        thread.join()
    assert [grown.ended for grown in found["甲"] if grown.ended] == ["length", "length"]
    assert [grown.ended for grown in found["乙"] if grown.ended] in (["stopped"], [])
    with asker.answerer.as_system("base"):
        prompt = asker.answerer.prompt("甲の問い", new_tokens=40)
        alone = asker.answerer.answer(prompt.ids, generation={**asker.answerer.generation, "max_new_tokens": 40})
    assert found["甲"][-1].text == alone.text


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot be listened to"):
            check_address(None, port)
    check_address(None, port)
    check_address("localhost", None)


def values(**given) -> pages.Values:
    usual = {"reference": "", "category": None, "both": True, "temperature": 0, "penalty": 1, "scope": "generated"}
    return pages.Values(**{"instruction": "首都は?", "context": "", "max_new_tokens": 12} | usual | given)


def test_the_status_says_of_each_model_how_its_answer_ended(trained_run, monkeypatch):
    from sft.generation.answerer import load_answerer, open_run

    monkeypatch.setenv("LC_ALL", "C")
    asker = Asker(load_answerer(open_run(trained_run)))
    real = asker.answerer.as_system

    @contextlib.contextmanager
    def slow_to_end(system: str) -> Iterator[None]:
        with real(system):
            yield
        time.sleep(0.2)

    monkeypatch.setattr(asker.answerer, "as_system", slow_to_end)
    *_, status, found = list(pages._answered(asker, "甲", values()))[-1]
    assert [line.partition(":")[0] for line in status.splitlines()] == ["tuned model", "base model"]
    assert status.count("cut off after 12 tokens") == 2
    assert found["whole"] == found["cut_off"] == ["tuned", "base"]
    asker.begin("甲")
    asker.stop("甲")  # while others are answered
    *_, status, found = list(pages._answered(asker, "甲", values()))[-1]
    assert status.splitlines() == ["tuned model: stopped", "base model: stopped"]
    assert found["whole"] == []


def test_a_category_is_that_of_the_question_that_was_answered(tmp_path):
    asked = {"instruction": "首都は?", "input": "", "category": "open_qa"}
    shown = {**asked, "said": {"tuned": "東京"}, "whole": ["tuned"], "cut_off": [], "ratings": {}}
    for question, category in (("山は?", "open_qa"), ("首都は?", "地理")):
        pages._rate(tmp_path, "tuned", "good", shown, None, "地理", question)
        assert read_ratings(tmp_path)[-1].category == category


# In a browser.


@pytest.fixture(scope="module")
def run_copy(trained_run, tmp_path_factory) -> Path:
    import shutil

    run = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    return run


@pytest.fixture(scope="module")
def served(run_copy) -> Iterator[str]:
    """The address of the page of a run, served by a process of its own, that ends at Ctrl-C without a word."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["infer.py", run_copy, "--web", "--port", port, "--lang", "ja", "generation.max_new_tokens=24"]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"http_proxy": "http://127.0.0.1:9"},  # a proxy is not asked for the page
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if f"http://127.0.0.1:{port}" in line:
            break
    else:
        pytest.fail("".join(lines))
    yield f"http://127.0.0.1:{port}/"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[browser.Browser]:
    program = browser.installed()
    if not program:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is installed")
    with browser.started(program, tmp_path_factory.mktemp("profile")) as running:
        yield running


STATUS = "document.querySelector('#status textarea').value"
TEXT = "(document.querySelector('#{}').querySelector('.textfield') || {{}}).innerText || ''"


def say(tab: browser.Tab, name: str) -> str:
    return tab.js(TEXT.format(name)).strip()


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rateable(tab: browser.Tab) -> None:
    """Wait until both answers are there and can be rated."""
    for system in pages.SYSTEMS:
        tab.wait(f"!document.querySelector('#good-{system}').disabled")


@pytest.fixture(scope="module")
def tab(chromium, served) -> browser.Tab:
    tab = chromium.tab()
    tab.open(served)
    tab.wait("document.querySelector('#ask')")
    return tab


def test_a_question_is_typed_and_both_answers_come_escaped(tab):
    tab.type("#instruction textarea", HOSTILE)
    tab.type("#context textarea", HOSTILE)
    tab.click("#ask")
    tab.wait(TEXT.format("tuned"))
    rateable(tab)
    assert say(tab, "base")
    assert say(tab, "shared") == HOSTILE
    assert tab.js("document.querySelectorAll('.answer img, .answer a, .answer strong').length") == 0
    assert "taken" not in tab.js("document.title")
    assert tab.js(STATUS).count("打ち切りました") == len(pages.SYSTEMS)


def test_what_is_said_of_answers_is_kept_as_rows(tab, run_copy):
    tab.click("#good-tuned")
    tab.wait(f"{STATUS}.includes('打ち切られた回答')")
    tab.click("#bad-tuned")
    tab.wait(f"{STATUS}.includes('良くない')")
    assert rows_of(run_copy / ROWS) == []
    tab.js("document.querySelector('#correct button').click()")
    tab.wait("(document.querySelector('#correction textarea') || {}).value")
    tab.type("#correction textarea", "東京です。\n<b>直した回答</b>")
    tab.click("#save")
    tab.wait(f"{STATUS}.includes('feedback.jsonl')")
    (row,) = rows_of(run_copy / ROWS)
    assert (row["instruction"], row["output"]) == (HOSTILE, "東京です。\n<b>直した回答</b>")
    assert [rating.rating for rating in read_ratings(run_copy)] == ["corrected"]


def test_an_example_brings_its_reference_and_context(tab):
    tab.wait("document.querySelectorAll('#examples button').length >= 2")
    tab.js("[...document.querySelectorAll('#examples button')].find(b => b.innerText.includes('closed_qa')).click()")
    tab.wait("document.querySelector('#reference textarea').value")
    assert tab.js("document.querySelector('#context textarea').value")


def test_settings_that_are_wrong_are_one_line(tab):
    tab.js("document.querySelector('#settings button').click()")
    tab.type("#temperature input", "-1")
    tab.click("#ask")
    tab.wait(f"{STATUS}.startsWith('error: generation.temperature: must be at least 0')")
    tab.type("#temperature input", "0")


def test_stopping_ends_the_answer(tab):
    tab.type("#max_new_tokens input", "450")
    tab.type("#instruction textarea", "長い話")
    tab.type("#context textarea", "")
    tab.click("#ask")
    tab.wait(f"{STATUS}.includes('回答しています') && {TEXT.format('tuned')}.length > 3")
    tab.click("#stop")
    tab.wait(f"{STATUS}.includes('停止')")
    assert say(tab, "base") == ""
    assert tab.js("document.querySelector('#good-tuned').disabled"), "half an answer is not rated"


def test_two_people_see_their_own_answers(chromium, served, tab):
    other = chromium.tab()
    other.open(served)
    other.wait("document.querySelector('#ask')")
    tab.type("#max_new_tokens input", "24")
    for one, question in ((tab, "首都は?"), (other, "山は?")):
        one.type("#instruction textarea", question)
    for one in (tab, other):
        one.click("#ask")
    for one in (tab, other):
        rateable(one)
    assert say(tab, "tuned") != say(other, "tuned")


def test_a_narrow_screen_needs_no_scrolling_sideways(tab):
    tab.resize(390, 844)
    tab.wait("document.documentElement.clientWidth === 390")
    assert tab.js("document.documentElement.scrollWidth") <= 390
    left = [tab.js(f"document.querySelector('#{system}').getBoundingClientRect().left") for system in pages.SYSTEMS]
    assert left[0] == left[1], "one answer below the other"
    tab.resize(1200, 1000)


def test_no_other_host_is_asked_and_nothing_fails(tab, served):
    elsewhere = [url for url in tab.urls if not url.startswith((served, "data:", "blob:"))]
    assert elsewhere == []
    assert tab.errors == []
    with urllib.request.urlopen(served, timeout=60) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
