"""Any engine's answers, through a stub server that answers rightly and fails in every way that servers do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from made_up import answers
from stub_server import Said, Stub, chat, completion, error, serving

from eval.endpoint import server as asking
from eval.endpoint.kept import Kept
from eval.endpoint.reply import Reply, read_reply
from eval.endpoint.server import Failure, Request, ask_all
from eval.endpoint.settings import Server, request_settings, server_of, server_url
from eval.predictions import read_predictions, write_predictions
from sft.prompt.template import ALPACA_JA
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
ROWS = [
    {"index": "1", "instruction": "日本の首都は？", "output": "東京", "category": "open_qa"},
    {
        "index": "2",
        "instruction": "休みは？",
        "input": "月曜日は休みです。",
        "output": "月曜日",
        "category": "closed_qa",
    },
    {"index": "3", "instruction": "一番高い山は？", "output": "富士山", "category": "open_qa"},
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asking, "RETRIES", 1)
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    for name in ("OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "faq.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


def answer(program, rows, stub: Stub, *words):
    where = ["--output", rows.parent / "out"] if "--output" not in words else []
    return program("eval.__main__", "answer", rows, "--endpoint", stub.url, "--model", "stub", *where, *words)


def ask(stub: Stub, tmp_path: Path, texts=("問い",), **options):
    with Kept(tmp_path / "replies.jsonl") as kept:
        requests = [Request({"messages": [{"role": "user", "content": text}]}) for text in texts]
        return ask_all(Server(f"{stub.url}/v1", "stub", **options), requests, kept, "asking")


def test_rows_become_predictions_that_score_and_compare_read(program, rows, tmp_path):
    with serving(lambda body: chat(" 東京です。\n", reasoning_content="考えました")) as stub:
        result = answer(program, rows, stub, "request.top_p=0.5")
    assert result.returncode == 0, result.stderr
    assert "3 calls" in result.stdout
    assert "3 answers of stub (3 eos)" in result.stdout
    found = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
    assert [one.text for one in found] == ["東京です。"] * 3
    assert {(one.system, one.finish_reason, one.prompt_tokens, one.output_tokens) for one in found} == {
        ("stub", "eos", 7, 3)
    }
    settings = {"model": "stub", "endpoint": f"{stub.url}/v1", "prompt": "chat", "temperature": 0, "max_tokens": 512}
    assert found[0].generation == settings | {"top_p": 0.5}
    by_question = {body["messages"][-1]["content"]: body for body in stub.seen}
    assert by_question.keys() == {"日本の首都は？", "休みは？\n\n月曜日は休みです。", "一番高い山は？"}
    assert stub.seen[0]["temperature"] == 0
    assert set(stub.keys) == {"Bearer none"}
    assert program("eval.__main__", "score", tmp_path / "out" / "predictions.jsonl").returncode == 0
    with serving(lambda body: chat("大阪です。")) as stub:
        answer(program, rows, stub, "--output", tmp_path / "B")
    compared = program(
        "eval.__main__", "compare", tmp_path / "out" / "predictions.jsonl", tmp_path / "B" / "predictions.jsonl"
    )
    assert compared.returncode == 0, compared.stderr
    assert "B against out" in compared.stdout


def test_a_templates_prompt_and_its_headings(program, rows, tmp_path):
    says = {
        "首都": completion("東京です。\n### 指示:\n次の質問"),  # a server that knows no stop strings
        "休み": completion("月曜日です。", stop_reason="\n### 応答:"),
        "山": completion("富士山です。", stop_reason=None),
    }
    with serving(lambda body: next(said for word, said in says.items() if word in body["prompt"])) as stub:
        assert answer(program, rows, stub, "--prompt", "alpaca-ja", "--system", "tuned").returncode == 0
    found = {one.example.index: one for one in read_predictions(tmp_path / "out" / "predictions.jsonl")}
    assert {index: (one.text, one.finish_reason) for index, one in found.items()} == {
        "1": ("東京です。", "heading"), "2": ("月曜日です。", "heading"), "3": ("富士山です。", "eos"),
    }  # fmt: skip
    assert found["2"].prompt == ALPACA_JA.render("休みは？", "月曜日は休みです。")
    assert stub.paths == ["/v1/completions"] * 3
    assert stub.seen[0]["stop"] == ["\n### 指示:", "\n### 入力:", "\n### 応答:"]
    assert found["1"].system == "tuned"


def test_a_context_above_the_question(program, rows, tmp_path):
    with serving(lambda body: chat("はい")) as stub:
        assert answer(program, rows, stub, "--prompt", "chat-context-first").returncode == 0
    assert {body["messages"][-1]["content"] for body in stub.seen} == {
        "日本の首都は？", "月曜日は休みです。\n\n休みは？", "一番高い山は？",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (completion("答え"), "stop"),  # it does not say whether at a stop string
        (completion("答え", "length"), "length"),
        (completion("", "content_filter"), "error"),
        (completion("答え", "stop", stop_reason=2), "eos"),
        (completion("答え", finish=None), "stop"),
    ],
)
def test_why_an_answer_ended_is_kept(program, rows, tmp_path, said, expected):
    with serving(lambda body: said) as stub:
        assert answer(program, rows, stub, "--prompt", "alpaca-ja").returncode == 0
    assert {one.finish_reason for one in read_predictions(tmp_path / "out" / "predictions.jsonl")} == {expected}


def test_answers_are_added_to_predictions_and_replace_those_of_their_own_system_alone(program, tmp_path):
    both = tmp_path / "A" / "eval" / "predictions.jsonl"
    both.parent.mkdir(parents=True)
    write_predictions([*answers("base", 1), *answers("tuned", 3)], both)
    with serving(lambda body: chat("別の答え")) as stub:
        words = ["eval.__main__", "answer", both, "--endpoint", stub.url, "--model", "org/stub"]
        assert program(*words).returncode == 0
        replaced = program(*words, "--system", "tuned", "--output", tmp_path / "B")
        assert replaced.returncode == 0, replaced.stderr
        here = program(*words, "--output", both.parent)
    found = list(read_predictions(both.parent / "answer-org-stub" / "predictions.jsonl"))
    assert [*dict.fromkeys(one.system for one in found)] == ["base", "tuned", "org/stub"]
    assert len(found) == 96
    found = list(read_predictions(tmp_path / "B" / "predictions.jsonl"))
    assert {one.text for one in found if one.system == "tuned"} == {"別の答え"}
    assert [one for one in found if one.system == "base"] == answers("base", 1)
    assert (here.returncode, "is what is read" in here.stderr) == (2, True)


def test_the_same_command_asks_nothing_twice_and_other_settings_replace_nothing(program, rows, tmp_path):
    with serving(lambda body: chat("答え")) as stub:
        assert answer(program, rows, stub).returncode == 0
        before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
        again = answer(program, rows, stub)
        assert (again.returncode, len(stub.seen)) == (0, 3)
        assert "0 calls (3 more are kept from before)" in again.stdout
        assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
        other = answer(program, rows, stub, "request.temperature=0.7")
        assert (other.returncode, len(stub.seen)) == (2, 3)
        assert "under other settings, which these would replace: --output DIR keeps both" in other.stderr
        assert answer(program, rows, stub, "request.temperature=0.7", "--force").returncode == 0
        assert len(stub.seen) == 6
        dry = answer(program, rows, stub, "--output", tmp_path / "dry", "--dry-run")
    assert (dry.returncode, len(stub.seen)) == (0, 6)
    assert not (tmp_path / "dry" / "predictions.jsonl").exists()


FAILURES = {
    "500": (error(500, "CUDA out of memory"), "500: CUDA out of memory"),
    "429": (error(429, "slow down"), "429: slow down"),
    "400": (error(400, "context too long"), "400: context too long"),
    "no JSON": (Said(b"<html>", 200, {"content-type": "text/html"}), "answered with no JSON: <html>"),
    "broken JSON": (Said(b'{"choices": [', 200), 'answered with no JSON: {"choices": ['),
    "nothing": (Said(b"", 200), "answered with no JSON: nothing"),
    "another form": (Said({"output": "答え"}), "answered in another form"),
    "no choices": (Said({"choices": []}), "answered in another form"),
    "numbers": (Said({"choices": [{"message": {"content": 5}}]}), "answered in another form"),
    "a list": (Said([1]), "answered with no object"),
    "an error with 200": (Said({"error": {"message": "busy"}}), "answered with an error"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_one_that_fails_is_an_error_among_the_others_and_is_asked_again(program, rows, tmp_path, name):
    fails, reason = FAILURES[name]
    with serving(lambda body: fails if "山" in body["messages"][0]["content"] else chat("答え")) as stub:
        result = answer(program, rows, stub)
        assert result.returncode == 0, result.stderr
        assert f"1 request failed: {reason}" in result.stderr
        assert "Traceback" not in result.stderr
        assert "2 eos, 1 error, 1 empty" in result.stdout
        found = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
        assert sorted((one.text, one.finish_reason) for one in found) == [
            ("", "error"),
            ("答え", "eos"),
            ("答え", "eos"),
        ]
        calls = len(stub.seen)
        assert calls == (4 if name in ("500", "429") else 3)  # the client asks those again
        stub.respond = lambda body: chat("富士山")
        assert answer(program, rows, stub).returncode == 0
        assert len(stub.seen) == calls + 1
    assert {one.text for one in read_predictions(tmp_path / "out" / "predictions.jsonl")} == {"答え", "富士山"}


def test_a_server_that_cannot_be_asked_is_one_line(program, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    lines = {}
    with serving(lambda body: error(401, "Incorrect API key provided: sk-secret")) as stub:
        lines["key"] = answer(program, rows, stub)
        stub.respond = lambda body: error(404, "The model `x` does not exist")
        lines["model"] = answer(program, rows, stub)
        stub.respond = lambda body: error(500, "down")
        lines["always"] = answer(program, rows, stub)
        assert set(stub.keys) == {"Bearer sk-secret"}
    lines["dead"] = answer(program, rows, stub)
    for result in lines.values():
        assert result.returncode == 2
        assert result.stderr.count("error: ") == 1
        assert "Traceback" not in result.stderr
        assert "sk-secret" not in result.stderr
    assert "401: Incorrect API key provided: …; set OPENAI_API_KEY" in lines["key"].stderr
    assert "404: The model `x` does not exist; its models: stub" in lines["model"].stderr
    assert "every request failed: 500: down" in lines["always"].stderr
    assert "cannot be reached" in lines["dead"].stderr
    assert "start the server" in lines["dead"].stderr
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    with serving(lambda body: chat("答え")) as stub:
        assert answer(program, rows, stub).returncode == 0
    assert set(stub.keys) == {"Bearer sk-secret"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]


def test_answers_go_where_the_other_commands_look_for_a_run(program, rows, tmp_path):
    words = ["eval.__main__", "answer", rows.name, "--model", "org/stub-7b", "data.columns={output: output}"]
    with serving(lambda body: chat("答え")) as stub:
        assert program(*words, "--endpoint", stub.url, cwd=tmp_path).returncode == 0
        rated = ["eval.__main__", "judge", "runs/faq-org-stub-7b", "--model", "m", "--dry-run"]
        assert "3 calls" in program(*rated, "--endpoint", stub.url, cwd=tmp_path).stdout
    assert (tmp_path / "runs" / "faq-org-stub-7b" / "eval" / "predictions.jsonl").is_file()


def test_request_after_request_that_fails_ends_the_work_and_keeps_what_was_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "FAILED_IN_A_ROW", 5)

    def respond(body):
        return chat("答え") if int(body["messages"][0]["content"]) < 10 else error(503, "overloaded")

    with serving(respond) as stub:
        with pytest.raises(UserError, match="5 requests in a row failed, the last: 503: overloaded; what was answered"):
            ask(stub, tmp_path, [str(n) for n in range(100)], concurrency=1)
        assert len(stub.seen) == 10 + 2 * 5
        stub.respond = lambda body: chat("後で")
        found = ask(stub, tmp_path, [str(n) for n in range(100)])
    assert [one.text for one in found] == ["答え"] * 10 + ["後で"] * 90


def test_a_slow_reply_is_a_failure_and_a_lost_connection_an_end(tmp_path):
    gone = threading.Event()

    def respond(body):
        if "遅い" in body["messages"][0]["content"]:
            gone.wait(5)
        return chat("答え")

    with serving(respond) as stub:
        found = ask(stub, tmp_path, ["遅い問い", "問い"], timeout=0.3)
        gone.set()
    assert found == [Failure("no reply within 0.3 s"), Reply("答え", "stop", None, 7, 3)]


def test_a_lost_connection_is_tried_again_and_a_lost_server_ends_the_work(tmp_path):
    def hangs_up(body):
        if len(stub.seen) in range(*down):
            raise ConnectionAbortedError
        return chat("答え")

    with serving(hangs_up) as stub:
        down = (2, 3)
        assert [one.text for one in ask(stub, tmp_path, "一二三", concurrency=1)] == ["答え"] * 3
        assert len(stub.seen) == 4
        down = (6, 99)
        with pytest.raises(UserError, match=r"cannot be reached .*; what was answered is kept, and the same command"):
            ask(stub, tmp_path, "一二三四五六", concurrency=1)
        assert len(stub.seen) == 5 + 2  # one more is answered, the next tried twice
        down = (0, 0)
        assert len(ask(stub, tmp_path, "一二三四五六", concurrency=1)) == 6
    assert len(stub.seen) == 7 + 2


def test_a_reply_that_is_cut_or_in_another_encoding_fails_alone(tmp_path):
    def respond(body):
        text = body["messages"][0]["content"]
        if text == "途中":
            return Said(b'{"choices": [', headers={"content-length": "500", "connection": "close"})
        if text == "別":
            return Said('{"choices": [{"message": {"content": "答え"}}]}'.encode("cp932"))
        return chat("答え")

    with serving(respond) as stub:
        cut, other, whole = ask(stub, tmp_path, ["途中", "別", "問い"], timeout=5)
    assert isinstance(cut, Failure)
    assert "cut" in cut.reason
    assert other == Failure("answered in another encoding than UTF-8")
    assert whole.text == "答え"


def test_an_ending_that_no_answer_has_is_said(program, rows):
    with serving(lambda body: chat("答え", finish="function_call")) as stub:
        result = answer(program, rows, stub)
    assert result.returncode == 0
    assert "with finish_reason 'function_call', which no answer ends with: counted as failed" in result.stderr


def test_forty_requests_at_once_are_in_their_order(tmp_path):
    def respond(body):
        time.sleep(0.05)
        return chat(body["messages"][0]["content"])

    with serving(respond) as stub:
        found = ask(stub, tmp_path, [str(n) for n in range(200)], concurrency=40)
        assert [one.text for one in found] == [str(n) for n in range(200)]
        assert 20 <= stub.most <= 40
        assert len(stub.seen) == 200
        ask(stub, tmp_path, ["0"] * 5 + ["新"] * 5)
    assert len(stub.seen) == 201  # what is the same is asked once


def test_a_killed_work_goes_on_and_its_half_line_is_left_out(program, rows, tmp_path):
    kept = tmp_path / "out" / "replies.jsonl"

    def respond(body):
        if body["messages"][0]["content"] == slow:
            killed.wait(60)
        return chat("答え")

    slow, killed = "一番高い山は？", threading.Event()
    with serving(respond) as stub:
        words = ["answer", rows, "--endpoint", stub.url, "--model", "stub", "--output", kept.parent]
        for how, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
            command = [sys.executable, "-m", "eval", *map(str, words), "--concurrency", "1"]
            process = subprocess.Popen(
                command, cwd=ROOT, stderr=subprocess.PIPE, text=True,
                # What a shell started in the background ignores Ctrl-C, and so would all that it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
            while process.poll() is None and not (stub.now and stub.seen[-1]["messages"][0]["content"] == slow):
                time.sleep(0.01)
            process.send_signal(how)
            _, said = process.communicate(timeout=60)
            assert process.returncode == status, said
            killed.set()
            while stub.now:  # the server has yet to notice
                time.sleep(0.01)
            killed.clear()
        assert "interrupted; the same command goes on" in said
        others = [body for body in stub.seen if body["messages"][0]["content"] != slow]
        assert len(kept.read_text().splitlines()) == len(others) == 2
        with kept.open("a") as file:
            file.write('{"key": "x", "rep')
        killed.set()
        finished = program("eval.__main__", *words)
        assert finished.returncode == 0, finished.stderr
    assert len(stub.seen) == 2 + 3  # the third row's question alone is asked again, each time
    assert "a line was cut off by an interruption and left out" in finished.stderr
    assert len([*read_predictions(kept.with_name("predictions.jsonl"))]) == 3


def test_the_file_of_replies_is_one_process_alone(tmp_path):
    with Kept(tmp_path / "replies.jsonl") as kept:
        kept.add("a", Reply("答え\ud800", "stop"))
        with pytest.raises(UserError, match="is being written by another process"):
            Kept(tmp_path / "replies.jsonl")
    with Kept(tmp_path / "replies.jsonl") as kept:
        assert kept.replies == {"a": Reply("答え\ud800", "stop")}
    with pytest.raises(UserError, match="cannot be written"):
        Kept(tmp_path / "absent" / "replies.jsonl")


def test_replies_of_other_shapes():
    parts = [{"type": "text", "text": "東京"}, {"type": "image"}, {"type": "text", "text": "です"}]
    message = {"content": parts}
    assert read_reply(json.dumps({"choices": [{"message": message}]})).text == "東京です"
    refusal = {"content": None, "refusal": "お答えできません"}
    assert read_reply(json.dumps({"choices": [{"message": refusal}]})) == Reply("お答えできません", refused=True)
    odd = {"choices": [{"message": {"content": "x"}, "stop_reason": 7}], "usage": {"prompt_tokens": -1}}
    assert read_reply(json.dumps(odd)) == Reply("x", stopped_at="")
    for count in (True, 10**12, "7", None, 1.5):
        counted = {"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": count}}
        assert read_reply(json.dumps(counted)).output_tokens == 0  # no file of predictions could hold it


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://api.example.com/openai/v1/", "https://api.example.com/openai/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_addresses_as_people_write_them(text, url):
    assert server_url(text) == url


@pytest.mark.parametrize("text", ["localhost:8000", "ftp://x", "http://", "http://h:x/v1", "http://me:pw@h/v1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UserError, match="--endpoint"):
        server_url(text)


def test_what_is_sent_is_checked():
    assert request_settings(["request.seed=1", "request.temperature=null", "data.x=1"], {"temperature": 0}) == (
        {"seed": 1},
        ["data.x=1"],
    )
    for word in ("request.model=x", "request.messages=[]", "request.user=sk-abcdefghijklmnopqrstuv"):
        with pytest.raises(UserError, match=r"command line: request\."):
            request_settings([word], {})
    with pytest.raises(UserError, match="--concurrency 0"):
        server_of("http://h", "m", 0, 1)
    with pytest.raises(UserError, match="--model"):
        server_of("http://h", " ", 1, 1)


def test_without_the_client_it_is_one_line(program, rows, monkeypatch):
    monkeypatch.setattr("sft.config.library.packages.is_installed", lambda package: False)
    result = program("eval.__main__", "answer", rows, "--endpoint", "http://h", "--model", "m")
    assert result.returncode == 2
    assert "asking a server needs openai, which is not installed here" in result.stderr
    assert "pip install -r requirements/judge.txt" in result.stderr
    assert "openai==3.57.0" in (ROOT / "requirements" / "judge.txt").read_text().split()


def test_no_torch_is_imported(command):
    code = "import sys, eval.endpoint.answer, eval.judge.judge; sys.exit('torch' in sys.modules)"
    assert command("-c", code, env={**os.environ}).returncode == 0
