"""Locales, encodings of the terminal, time zones, clocks and names of directories: the commands work in all of them."""

import ast
import io
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import infer
from eval.predictions import read_predictions
from sft.checks import doctor
from sft.run.directory import newest_finished_run
from sft.run.manifest import read_manifest

ROOT = Path(__file__).parents[1]
QUICK = ["eval.rows_per_category=1", "eval.resamples=10", "generation.max_new_tokens=2"]
QUESTION = ["--instruction", "首都は?", "--input", "日本の首都は東京です。😀", QUICK[-1]]


def use(program, trained_run: Path, run: Path) -> None:
    """Train, ask and evaluate in `run`."""
    quoted = "'" + str(run).replace("'", "''") + "'"
    for words in (
        ["train_sft", trained_run / "config.yaml", f"run.directory={quoted}"],
        ["infer", run, *QUESTION],
        ["eval.__main__", run, *QUICK],
    ):
        result = program(*words)
        assert result.returncode == 0, result.stderr
    assert read_manifest(run).status == "finished"
    assert len(list(read_predictions(run / "eval" / "predictions.jsonl"))) == 16
    assert "Context QA" in (run / "eval" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_in_a_directory_of_any_name(program, trained_run, tmp_path):
    use(program, trained_run, tmp_path / "実験 その一" / 'it\'s "quoted" [bold]x[/] {instruction} %s $HOME *? 富士山😀')


@pytest.fixture
def tokyo(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.slow
def test_a_clock_that_goes_backwards_in_another_time_zone(program, trained_run, tmp_path, monkeypatch, tokyo):
    moment, step = [4e9], 3600.0

    def backwards() -> float:
        moment[0] -= step
        return moment[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr("sft.training.train.now", lambda: datetime.fromtimestamp(backwards(), UTC).isoformat())
    use(program, trained_run, tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert manifest.finished < manifest.started
    assert manifest.finished.endswith("+00:00")
    assert manifest.seconds > 0


def test_the_newest_run_is_told_in_utc_whatever_the_files_times(trained_run, tmp_path, tokyo):
    for name, finished in (("a", "2026-01-01T16:00:00.000000+00:00"), ("b", "2026-01-01T15:59:59.999999+00:00")):
        (tmp_path / name).mkdir()
        text = (trained_run / "manifest.json").read_text(encoding="utf-8")
        text = text.replace(read_manifest(trained_run).finished, finished)
        (tmp_path / name / "manifest.json").write_text(text, encoding="utf-8")
    os.utime(tmp_path / "a" / "manifest.json", (0, 0))
    os.utime(tmp_path / "b" / "manifest.json", (2**33, 2**33))
    assert newest_finished_run(tmp_path) == tmp_path / "a"


@pytest.mark.parametrize("encoding", ["ascii", "shift_jis", "euc_jp", "latin-1", "utf-16"])
def test_terminals_of_other_encodings_get_escapes_and_no_traceback(trained_run, monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["infer", str(trained_run), *QUESTION])
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr("sft.generation.streamer.text_of", lambda *_: "東京😀鱻")
    infer.main()
    for stream in streams:
        stream.flush()
    shown = streams[0].buffer.getvalue().decode(encoding)
    assert shown.strip() == "東京😀鱻".encode(encoding, "backslashreplace").decode(encoding)


IN_ONE_PROCESS = """
import importlib, sys
assert sys.flags.utf8_mode == 0
for words in [
    ["train_sft", sys.argv[1], f"run.directory={sys.argv[2]}"],
    ["infer", sys.argv[2], "--jsonl", sys.argv[3], "--output", sys.argv[4], "generation.max_new_tokens=2"],
    ["eval.__main__", sys.argv[2], "eval.rows_per_category=1", "eval.resamples=10", "generation.max_new_tokens=2"],
    ["sft.export.__main__", sys.argv[2], "--base-id", "none"],
]:
    sys.argv[:], arguments = words, sys.argv[:]
    importlib.import_module(words[0]).main()
    sys.argv[:] = arguments
"""
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.mark.slow
def test_the_c_locale_without_utf_8(command, trained_run, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"instruction": "首都は?", "id": "😀"}\n', encoding="utf-8")
    words = [trained_run / "config.yaml", tmp_path / "run", questions, tmp_path / "answers.jsonl"]
    result = command("-c", IN_ONE_PROCESS, *words, env={**os.environ, **C_LOCALE})
    assert result.returncode == 0, result.stderr
    assert '"id": "😀"' in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    assert "みなと町図書館" in (tmp_path / "run" / "export" / "adapter" / "README.md").read_text(encoding="utf-8")
    predictions = (tmp_path / "run" / "eval" / "predictions.jsonl").read_bytes()
    assert "### 応答:" in predictions.decode("utf-8")


@pytest.mark.parametrize(
    ("program_file", "words", "message"),
    [
        ("infer.py", ["--instruction", "首都は?"], "must be text in the terminal's encoding"),
        (
            "train_sft.py",
            ["configs/tiny.yaml", "run.directory=runs/実験"],
            "run.directory: is not text in the terminal's encoding; set LC_ALL=C.UTF-8",
        ),
        ("train_sft.py", ["configs/無い.yaml"], "no such configuration file"),
    ],
)
def test_japanese_words_in_the_c_locale_are_one_line(command, program_file, words, message):
    result = command(program_file, *words, env={**os.environ, **C_LOCALE})
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def names_no_encoding(call: ast.Call) -> bool:
    """Whether this opens a file of text without saying its encoding."""
    if not isinstance(call.func, ast.Attribute):
        return getattr(call.func, "id", "") == "open"  # of which the project has none
    owner = getattr(call.func.value, "id", "")
    others = ("os", "runs", "opener")  # runs: sft.run; opener: urllib's
    if call.func.attr not in ("open", "read_text", "write_text") or owner in others:
        return False
    mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "r"
    binary = call.func.attr == "open" and "b" in mode
    return not binary and not any(keyword.arg == "encoding" for keyword in call.keywords)


def test_every_file_of_text_is_opened_with_an_encoding():
    folders = (ROOT / name for name in ("sft", "eval", "studies", "benchmarks"))
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert len(files) > 60
    calls = {
        path: [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for path in files
    }
    assert [f"{path}:{call.lineno}" for path in files for call in calls[path] if names_no_encoding(call)] == []


def test_both_models_answer_side_by_side(program, trained_run):
    alone = [program("infer", trained_run, *QUESTION, *base).stdout.strip() for base in (["--base"], [])]
    both = program("infer", trained_run, "--both", *QUESTION, "--lang", "en")
    assert both.returncode == 0, both.stderr
    question, context, *table = both.stdout.splitlines()
    assert (question, context) == ("question: 首都は?", "context: 日本の首都は東京です。😀")
    cells = [line.strip("│ ").split(" │ ") for line in table if line.startswith("│")]
    joined = ["".join("".join(cell.split()) for cell in column) for column in zip(*cells, strict=True)]
    assert joined == ["".join(answer.split()) for answer in alone]
    assert "give --instruction" in program("infer", trained_run, "--both").stderr


def test_an_answer_without_spaces_is_shown_whole(program, trained_run, monkeypatch):
    said = "午前九時から午後八時まで開いています。" * 10
    monkeypatch.setattr("sft.generation.answerer.Answerer.answer", lambda *_, **__: SimpleNamespace(text=said))
    shown = program("infer", trained_run, "--both", *QUESTION).stdout
    cells = [line.strip("│ ").split(" │ ") for line in shown.splitlines() if line.startswith("│")]
    assert ["".join(map(str.strip, column)) for column in zip(*cells, strict=True)] == [said, said]


def test_every_column_of_a_terminals_table_folds_or_is_cut_on_purpose():
    """rich cuts a cell without spaces off at the column's end unless it is told to fold it."""
    silent = []
    for path in (*ROOT.glob("sft/**/*.py"), *ROOT.glob("eval/**/*.py")):
        source = path.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)] * ("rich.table" in source)
        columns = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] in ("Column", "add_column")]
        for call in columns:
            if not {keyword.arg for keyword in call.keywords} & {"no_wrap", "overflow"}:
                silent.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert silent == []


def test_a_line_of_the_doctor_without_spaces_is_shown_whole():
    console = Console(file=io.StringIO(), width=60)
    line = doctor.Line("yellow", "行", "文脈が長すぎます。" * 20, "短くしてください。" * 20)
    doctor.show(console, [line], {"a": doctor.Shares({}, None)})
    assert "".join(console.file.getvalue().split()).count("文脈が長すぎます。") == 20
    assert "…" not in console.file.getvalue()
