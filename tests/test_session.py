"""A session with a finished run: its commands, its keys, and what stops an answer."""

import dataclasses
import gzip
import io
import json
import os
import pty
import signal
import stat
import sys
import termios

import pytest
import torch
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from sft.ask import session as sessions
from sft.ask import terminal
from sft.ask.piped import answer_lines
from sft.ask.session import Session
from sft.config.load import data_section
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.generation.generate import Answer
from sft.system.errors import UserError
from sft.system.texts import speak

CONTEXT = "みなと町図書館は\n午前9時から\n開いています。"


@pytest.fixture(scope="module")
def answerer(trained_run) -> Answerer:
    return load_answerer(open_run(trained_run, ["generation.max_new_tokens=12"]))


@pytest.fixture
def session(answerer) -> Session:
    return Session(answerer, "tuned", ["generation.max_new_tokens=12"], lambda prompt: CONTEXT)


@pytest.fixture
def with_turns(session, monkeypatch) -> Session:
    """A session whose template keeps conversations, as chat templates do."""
    turn = "{instruction}\n答え: {output}\n"
    template = dataclasses.replace(session.answerer.template, turn=turn, turn_end="\n")
    monkeypatch.setattr(session.answerer, "template", template)
    return session


def test_what_was_pasted_stands_beside_every_question_until_it_is_taken_away(session):
    session.take("/context")
    session.take("何時からですか。")
    session.take("／ｃｏｎｔｅｘｔ　なし")
    session.take("何時までですか。")
    assert [asked.context for asked in session.asked] == [CONTEXT, ""]
    session.take(f"/context {CONTEXT}")
    assert session.context == CONTEXT


def test_a_context_comes_out_of_a_file_in_any_encoding(session, tmp_path):
    path = tmp_path / "文 脈.txt"
    path.write_text(CONTEXT, encoding="cp932")
    session.take(f"/context {path}")
    assert session.context == CONTEXT
    with pytest.raises(UserError, match="no such file"):
        session.take("/context absent.txt")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(CONTEXT.encode())[:-12])
    for name in ("~nobody-here/文脈.txt", "図書館は午前9時から開いています。" * 20, f"{tmp_path}/cut.txt.gz"):
        with pytest.raises(UserError, match=r"^/context: .{0,60}: (no such file; /context alone|cannot be read)"):
            session.take(f"/context {name}")
    assert session.context == CONTEXT


def test_settings_are_checked_as_the_configuration_is(session, capsys):
    session.take("/set temperature 0.2")
    session.take("/set generation.top_p=0.9")
    session.take("/set")
    assert "temperature 0.2" in capsys.readouterr().err.splitlines()[-1]
    before = session.generation
    assert (before["temperature"], before["top_p"], before["max_new_tokens"]) == (0.2, 0.9, 12)
    for words, problem in [
        ("temprature 0.2", "generation.temprature: unknown key; did you mean temperature?"),
        ("temperature hot", "expected a finite number"),
        ("temperature -1", "must be at least 0"),
        ("temperature", "needs a value"),
        ("max_new_tokens 1000000", "no room for a prompt"),
    ]:
        with pytest.raises(UserError, match=problem.replace("?", r"\?")):
            session.take(f"/set {words}")
    assert session.generation == before
    session.take("/set　temperature　＝　０．５")
    session.take('/set stop_strings ["問い：", "a = b"]')
    assert (session.generation["temperature"], session.generation["stop_strings"]) == (0.5, ["問い：", "a = b"])
    assert session.answerer.generation["temperature"] == 0, "others who ask the same model keep theirs"


def test_an_unknown_command_names_the_nearest_and_a_path_is_a_question(session):
    with pytest.raises(UserError, match="/contxt: no such command; did you mean /context"):
        session.take("/contxt")
    session.take("/etc/hosts とは何ですか。")
    assert session.asked[0].instruction.startswith("/etc/hosts")


def test_both_models_answer_under_their_names(session, capsys):
    speak("en")
    session.take("首都は?")
    tuned = capsys.readouterr().out
    session.take("/base")
    base = capsys.readouterr()
    assert "base model" in base.err
    with session.answerer.as_system("base"):
        prompt = session.answerer.prompt("首都は?")
        assert base.out.strip() == session.answerer.answer(prompt.ids).text
    session.take("首都は?")
    both = capsys.readouterr()
    assert both.out == tuned + base.out
    assert both.err.index("tuned model") < both.err.index("base model")
    with pytest.raises(UserError, match="without it to see both"):
        Session(session.answerer, "base", [], str).take("/base")
    speak(None)


def ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of the small model, which knows no end, count as ended by themselves from now on."""
    real = sessions.stream
    monkeypatch.setattr(sessions, "stream", lambda *words: real(*words)._replace(finish_reason="eos"))


def test_ctrl_c_stops_the_answer_and_the_next_is_whole(session, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a job in the background has another than a terminal's
    session.take("/set max_new_tokens 60")
    real = sessions.stream

    def interrupted(answerer, prompt, settings, write, stopped):
        return real(answerer, prompt, settings, lambda text: signal.raise_signal(signal.SIGINT), stopped)

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "stream", interrupted)
        session.take("首都は?")
    stopped = session.asked[0]
    assert stopped.ended == "stopped"
    session.take("/again")
    (again,) = session.asked
    assert again.ended == "length"
    assert len(again.answer) > len(stopped.answer)
    session.take("山は?")
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "stream", interrupted)
        session.take("首都は?")
    assert session.asked[-1].ended == "stopped"
    assert len(session.asked[-1].answer) < len(again.answer)
    assert signal.getsignal(signal.SIGINT) is before


def test_saved_rows_are_read_as_data_and_nothing_else_is_replaced(with_turns, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match="nothing was asked"):
        with_turns.take(f"/save {path}")
    with_turns.take("海は?")
    with pytest.raises(UserError, match="/set max_new_tokens"):  # it would teach to stop in mid-sentence
        with_turns.take(f"/save {path}")
    with_turns.asked[-1].answer, with_turns.asked[-1].ended = "", "stop"
    with pytest.raises(UserError, match="or empty: /again"):
        with_turns.take(f"/save {path}")
    with_turns.asked, with_turns.history = [], []
    ends_by_itself(monkeypatch)
    with_turns.take("/context")
    with_turns.take("首都は?")
    with_turns.take("山は?")
    with_turns.take(f"/save {path}")
    with_turns.take("川は?")
    with_turns.take(f"/save {path}")
    rows = list(examples_of(load_data(data_section([str(path)], []).sources).rows))
    assert [row.instruction for row in rows] == ["首都は?", "山は?", "川は?"]
    assert rows[1].history == (("user", "首都は?"), ("assistant", with_turns.asked[0].answer))
    assert rows[1].input == CONTEXT
    other = tmp_path / "other.jsonl"
    other.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        with_turns.take(f"/save {other}")
    assert other.read_text() == "mine"
    with pytest.raises(UserError, match=r"ends in \.jsonl"):
        with_turns.take("/save rows.txt")
    with pytest.raises(UserError, match="cannot be written"):
        with_turns.take("/save ~nobody-here/rows.jsonl")


def test_a_conversation_is_kept_where_the_template_has_a_place_for_it(with_turns):
    with_turns.take("首都は?")
    with_turns.take("人口は?")
    assert len(with_turns.asked[1].history) == 2
    with_turns.take("/again")
    assert len(with_turns.asked[1].history) == 2
    assert len(with_turns.history) == 4
    with_turns.take("/new")
    with_turns.take("/again")
    assert with_turns.asked[-1].history == [], "another conversation has begun"
    with_turns.take("/new")
    with_turns.take("山は?")
    assert with_turns.asked[-1].history == []


def test_an_empty_answer_is_no_turn_which_rows_could_not_have(with_turns, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "stream", lambda *_: Answer("", "eos", 1))
        with_turns.take("首都は?")
    with_turns.take("山は?")
    assert with_turns.asked[-1].history == []


def test_an_answer_that_memory_does_not_suffice_for_is_a_line(session, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(session.answerer, "answer", full)
    with pytest.raises(UserError, match="memory does not suffice for this answer; shorten"):
        session.take("首都は?")


def test_without_such_a_template_questions_stand_alone(session):
    session.take("首都は?")
    session.take("人口は?")
    assert session.asked[1].history == []


@pytest.fixture
def typed(answerer, monkeypatch, tmp_path):
    """Types keys into the session's editor until Ctrl-D; returns the lines that the session took."""
    taken = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Session, "take", lambda self, line: taken.append(line))
    main, other = pty.openpty()

    def run(keys: str) -> list[str]:
        with os.fdopen(os.dup(other)) as terminal_, create_pipe_input() as keyboard, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", terminal_)
            keyboard.send_text(keys + "\x04")
            with create_app_session(input=keyboard, output=DummyOutput()):
                terminal.converse(answerer, "tuned", [])
            assert termios.tcgetattr(terminal_)[3] & termios.ECHO
        return taken

    yield run
    os.close(main)
    os.close(other)


def test_enter_sends_and_what_is_pasted_stays_together(typed, tmp_path):
    pasted = f"\x1b[200~{CONTEXT}\x1b[201~"
    assert typed(f"首都は？\r{pasted}\ra\x1b\rb\rc\nd\r") == ["首都は？", CONTEXT, "a\nb", "c\nd"]
    history = tmp_path / "state" / "calm-sft" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "首都は？" in history.read_text(encoding="utf-8")


def test_ctrl_c_at_the_prompt_drops_what_was_typed(typed):
    assert typed("山は？\rabc\x03川は？\r") == ["山は？", "川は？"]


def test_a_history_that_cannot_be_kept_is_said(typed, tmp_path, capsys):
    (tmp_path / "state").write_text("a file")
    assert typed("山は？\r") == ["山は？"]
    assert "what is typed is not kept" in capsys.readouterr().err


def test_pairs_of_lines_are_all_answered_or_named(answerer, capsys):
    answer_lines(answerer, io.StringIO("首都は?\n\n山は?\n富士山です。\n\n\n川は?"))
    assert capsys.readouterr().out.count("\n\n") == 3
    with pytest.raises(UserError, match="1 of 2 questions got no answer"):
        answer_lines(answerer, io.StringIO("\n富士山です。\n山は?\n富士山です。\n"))
    output = capsys.readouterr()
    assert "error: question 1: the line of the question is empty" in output.err
    assert output.out.strip()


def test_rows_are_json_lines(session, tmp_path, monkeypatch):
    ends_by_itself(monkeypatch)
    session.take("首都は?")
    session.take(f"/save {tmp_path / 'a.jsonl'}")
    row = json.loads((tmp_path / "a.jsonl").read_text())
    assert row == {"instruction": "首都は?", "input": "", "output": session.asked[0].answer}
