"""Every file that the program writes is there whole or as it was: full disks, limits, kills, for all of them.

`WRITERS` makes every artefact there is. What writes otherwise, or is not among them, fails the first two tests.
"""

import argparse
import ast
import contextlib
import errno
import gc
import inspect
import json
import os
import re
import resource
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
from made_up import answers, on_disk

from eval import rate
from eval.predictions import write_predictions
from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.split import Split, split_rows
from sft.prompt import encoded_rows
from sft.prompt.template import ALPACA_JA
from sft.run import checkpoints
from sft.run.held_out import write_split
from sft.run.manifest import read_manifest, write_manifest
from sft.run.provenance import Provenance, Record, write_record
from sft.system import files
from sft.system.errors import UserError, exit_on_user_error
from sft.system.files import whole_file, write_whole
from sft.system.progress import Progress
from sft.system.whole_directory import whole_directory

ROOT = Path(__file__).parents[1]
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in [*(path for room in ("sft", "eval", "studies") for path in (ROOT / room).rglob("*.py")),
                 ROOT / "train_sft.py", ROOT / "infer.py"]
}  # fmt: skip

# What is wrong with each of these is said by its own tests.
OTHER_WAYS = {
    "sft/system/files.py": {"open", "replace"},  # the one way itself
    "sft/system/whole_directory.py": {"rename"},  # the one way for directories
    "sft/system/progress.py": {"open"},  # a line more for each finished job; whole lines alone are read
    "eval/endpoint/kept.py": {"open"},  # a line more for each reply; whole lines alone are read
    "sft/training/log.py": {"open"},  # a line more for each logged step; whole lines alone are read
    "sft/run/checkpoints.py": {"rename"},  # directories that several processes add to, hashed
    "sft/run/directory.py": {"open", "rename"},  # the lock of a run, and the run that --force replaces
    "sft/ask/terminal.py": {"open"},  # prompt_toolkit's own history: made for its user's eyes, added to line by line
    "sft/build_base.py": {"open", "rename", "save_pretrained"},  # a base model, in a directory of its own, renamed
    "sft/config/library/keys.py": {"write_text"},  # a table of the source
    "sft/export/compatible.py": {"save_pretrained"},  # into a whole_directory
    "sft/export/export.py": {"copyfile", "save_pretrained"},  # into a whole_directory
    "sft/training/train.py": {"save_pretrained"},  # into a whole_directory
}
"""Module → other ways to write than `write_whole` and `whole_file` that it has."""


def way_to_write(call: ast.Call) -> str | None:
    """The name of the function called when it writes or renames files by itself."""
    whole, (_, _, name) = ast.unparse(call), ast.unparse(call.func).rpartition(".")
    owner = ast.unparse(call.func).rpartition(".")[0]
    modes = [argument.value for argument in ast.walk(call) if isinstance(argument, ast.Constant)]
    if name == "open":
        if owner == "os":
            writes = "O_RDONLY" not in whole and "devnull" not in whole
        else:
            writes = any(isinstance(m, str) and set(m) <= set("rwaxbt+") and set(m) & set("wax+") for m in modes)
    elif name == "replace":  # a path's has one argument, a text's two
        writes = owner == "os" or (len(call.args) == 1 and not call.keywords)
    elif name == "dump":
        writes = owner in ("json", "pickle", "yaml") and len(call.args) > 1
    else:
        writes = bool(owner) and name in (
            "write_text", "write_bytes", "rename", "renames", "mkstemp", "NamedTemporaryFile", "OSFile", "fdopen",
            "copy2", "copyfile", "copytree", "move", "tofile", "to_parquet", "to_json", "to_csv", "to_excel", "savetxt",
            "imsave", "save_file", "save_pretrained", "save_to_disk",
        )  # fmt: skip
    return name if writes else None


def test_nothing_is_written_in_another_way() -> None:
    found: dict[str, set[str]] = {}
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (name := way_to_write(node)):
                found.setdefault(path, set()).add(name)
    assert found == OTHER_WAYS


# What is made, and what it is made of. Each gets an empty directory, and returns a function that makes its files there.


def make_manifest(directory, trained_run):
    return lambda: write_manifest(directory, read_manifest(trained_run))


def make_split(directory):
    rows = [[Example(f"{side}{n}", "問い", "", "答え", "open_qa") for n in range(20)] for side in range(3)]
    return lambda: write_split(directory, Split(*map(on_disk, rows)))


def make_start_of_a_run(directory, monkeypatch, trained_run):
    from sft.training import train

    monkeypatch.setattr(train, "describe_trained", lambda model: "")
    config = load_config(trained_run / "config.yaml", [f"run.directory={directory}"])
    manifest = read_manifest(trained_run).model_copy(update={"resumed": True})
    split = Split(*(on_disk([Example(f"{n}", "問い", "", "答え", "open_qa")]) for n in range(3)))
    model = SimpleNamespace(config=SimpleNamespace())
    return lambda: train.record_start(config, SimpleNamespace(split=split), model, manifest)


def make_log(directory):
    from transformers import TrainerState

    from sft.training.log import RunLog

    log = directory / "log.jsonl"
    log.write_text("".join(json.dumps({"step": n, "loss": 1.0}) + "\n" for n in range(20)))
    state = TrainerState(is_world_process_zero=True, global_step=10, max_steps=20)
    arguments = SimpleNamespace(logging_steps=1, eval_steps=None, save_steps=1)
    return lambda: RunLog(log, lambda steps: [1] * steps).on_train_begin(arguments, state, None)


def make_loss_plot(directory, trained_run):
    from sft.training.loss_plot import plot_loss

    return lambda: plot_loss(trained_run / "log.jsonl", directory / "loss.png", "run", None)


def make_run_page(directory, trained_run):
    from sft.training.page import write_page

    config = load_config(trained_run / "config.yaml", [f"run.directory={directory}"], to_train=False)
    rows = load_data("data/sample.jsonl")
    split = split_rows(rows.rows, 0.1, 0.1)
    plan = SimpleNamespace(data=rows, split=split, steps=2, train=SimpleNamespace(fates=Counter()))
    (directory / "log.jsonl").write_bytes((trained_run / "log.jsonl").read_bytes())
    return lambda: write_page(config, plan, 2)


def make_samples(directory):
    from sft.training.samples import SampleAnswers

    path = directory / "samples.jsonl"
    path.write_text("".join(json.dumps({"step": n, "answer": "答え"}) + "\n" for n in range(20)))
    log_of = SimpleNamespace(is_world_process_zero=True, global_step=10)
    return lambda: SampleAnswers(None, [], path, print).on_train_begin(None, log_of, None)


def make_checkpoint(directory):
    def make():
        aside = directory / checkpoints.ASIDE / "checkpoint-3"
        shutil.rmtree(aside.parent, ignore_errors=True)  # as the trainer does
        aside.mkdir(parents=True)
        (aside / "adapter.safetensors").write_bytes(b"x" * 300)
        checkpoints.complete(aside, "run")

    return make


def make_template(directory):
    return lambda: ALPACA_JA.save(directory)


def make_export(directory, trained_run):
    from sft.export.export import export
    from sft.export.request import Request

    return lambda: export(Request(trained_run, ["model.base=someone/tiny"], output=directory / "adapter"))


def make_encoded_rows(directory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", directory)
    rows = [{"input_ids": [1, 2], "labels": [1, 2], "index": "1", "category": "open_qa"}] * 50
    batch = pyarrow.RecordBatch.from_pylist(rows, encoded_rows.SCHEMA)
    return lambda: encoded_rows.kept("key", iter([batch, batch]), lambda: {"notes": "x"})


def make_answers(directory, tokenizer):
    from sft.ask.answers import answer_file
    from sft.data.read import Asked

    def prompt(instruction, context, history):
        return SimpleNamespace(ids=[1, 2])

    def answer_all(prompts, *_):
        return ((0, n, SimpleNamespace(text="答え" * 30, finish_reason="eos")) for n in range(len(prompts)))

    given = {"identity": "", "tokenizer": tokenizer, "generation": {"max_new_tokens": 8}, "template": ALPACA_JA}
    given["config"] = SimpleNamespace(eval=SimpleNamespace(batch_tokens=8192))
    answerer = SimpleNamespace(prompt=prompt, answer_all=answer_all, **given)

    def make():
        gc.collect()  # a process that ended would have let go its lock
        progress = Progress(directory / "answers.jsonl", 0)
        answer_file(answerer, [Asked("row 1", {"質問": "問い"}, "問い") for _ in range(9)], progress, "tuned")

    return make


def make_cleaned_rows(directory):
    from sft.config.load import data_section
    from sft.overview.overview import overview

    return lambda: overview(data_section(["data/sample.jsonl"], []), directory / "rows.jsonl")


def make_predictions(directory):
    return lambda: write_predictions(answers("tuned"), directory / "predictions.jsonl")


def make_record(directory):
    provenance = Provenance(
        run="now", base="a model", base_commit=None, base_sha256="0" * 64, learned="1" * 64, template="2" * 64,
        loading={"dtype": "auto"}, data=None, rows="3" * 64, systems=["tuned"], generation=[{"do_sample": False}],
        seed=0, batch_tokens=8192, deviations=[],
    )  # fmt: skip
    return lambda: write_record(directory, Record(provenance=provenance, files={"predictions.jsonl": "4" * 64}))


def command(monkeypatch, *words):
    """`python -m eval` with these words, that draws no figure and few resamples: neither writes a file."""
    import eval.__main__
    from eval.statistics import estimates

    counts = estimates.resampled_counts
    monkeypatch.setattr(estimates, "resampled_counts", lambda clusters, _, seed: counts(clusters, 50, seed))
    monkeypatch.setattr("sft.page.svg.draw", lambda *_: "<svg/>")

    def make():
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["eval", *map(str, words)])
            eval.__main__.main()

    return make


def two_runs(directory):
    runs = [directory / name for name in "AB"]
    for quality, run in enumerate(runs, start=1):
        (run / "eval").mkdir(parents=True)
        write_predictions(answers("tuned", quality), run / "eval" / "predictions.jsonl")
    return runs


def make_scores_and_report(directory, monkeypatch):
    write_predictions([*answers("base", 1), *answers("tuned", 3)], directory / "predictions.jsonl")
    return command(monkeypatch, "score", directory / "predictions.jsonl")


def make_comparison(directory, monkeypatch):
    return command(monkeypatch, "compare", *two_runs(directory), "--output", directory / "out")


def make_sweep(directory, monkeypatch, trained_run):
    from eval.answering.settings import read_grid
    from eval.answering.sweep import answer_grid

    monkeypatch.setattr("eval.answering.sweep.rows_to_answer", lambda *_: [])
    monkeypatch.setattr("eval.answering.sweep.answer_under", lambda *_, **__: [])
    monkeypatch.setattr("eval.answering.sweep.load_answerer", lambda *_: SimpleNamespace(generation={}))
    shutil.copytree(trained_run, directory / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return lambda: answer_grid(directory / "run", read_grid(directory / "run", []))


def make_report_of_a_sweep(directory, monkeypatch):
    settings = [{"repetition_penalty": 1.0}, {"repetition_penalty": 5.0}]
    names = [f"predictions-{n:02}.jsonl" for n in range(2)]
    for n, name in enumerate(names):
        write_predictions(answers("tuned", 3 - n, settings[n]), directory / name)
    (directory / "sweep.json").write_text(json.dumps({"settings": settings, "predictions": names}))
    return command(monkeypatch, "sweep", directory)


def make_rating_sheet(directory, monkeypatch):
    return command(monkeypatch, "rate", *two_runs(directory), "--output", directory / "out")


def make_preferences(directory, monkeypatch):
    rate.write_sheet(list(map(str, two_runs(directory))), directory, seed=0)
    sheet = directory / rate.SHEET
    sheet.write_text(sheet.read_text(encoding="utf-8").replace(",,\n", ",tie,\n"), encoding="utf-8")
    return command(monkeypatch, "rate", "--collect", sheet)


def replying(monkeypatch, text):
    """A server that says the same to everything, without one."""
    from eval.endpoint.reply import Reply

    for module in ("eval.endpoint.answer", "eval.judge.judge"):
        monkeypatch.setattr(f"{module}.ask_all", lambda server, requests, *_: [Reply(text, "stop")] * len(requests))
        monkeypatch.setattr(f"{module}.REPLIES", ".replies")  # it only grows, and has tests of its own
    return ["--endpoint", "http://localhost", "--model", "m", "--output"]


def make_answers_of_a_server(directory, monkeypatch):
    words = replying(monkeypatch, "答え" * 50)
    return command(monkeypatch, "answer", "data/sample.jsonl", *words, directory / "out", "--force")


def make_judgement(directory, monkeypatch):
    write_predictions([*answers("base", 1), *answers("tuned", 3)], directory / "predictions.jsonl")
    return command(monkeypatch, "judge", directory, *replying(monkeypatch, "評価: 4"), directory / "out")


def make_report_of_a_study(directory, monkeypatch):
    from test_study import as_in_the_table, scored

    from studies.context_qa.report import write as report

    study = scored(directory / "scores", as_in_the_table)
    results = report.results_of([study])
    drawn = report.figures(results)[:1]
    monkeypatch.setattr(report, "results_of", lambda _: results)
    monkeypatch.setattr(report, "figures", lambda _: drawn)
    monkeypatch.setattr(report, "tables", lambda *_: "| a table |\n")
    return lambda: report.write_report([study], directory / "report")


def make_scores_of_a_study(directory, monkeypatch):
    from test_study import as_in_the_table, scored

    return lambda: scored(directory, as_in_the_table, without="-42")


def make_counts_of_an_article(directory, monkeypatch, tiny_base):
    from test_study import ARTICLE, SMOKE

    from studies.context_qa.forensics import write_article
    from studies.context_qa.plan import load_study

    (directory / "article.md").write_text(ARTICLE)
    words = [f"scores={directory}", f'overrides=["model.base={tiny_base}", "model.build=null"]']
    return lambda: write_article(load_study(SMOKE, words), directory / "article.md")


def make_rows_with_distractors(directory):
    from test_study import SMOKE

    from studies.context_qa.distractors import write_distractors
    from studies.context_qa.plan import load_study

    return lambda: write_distractors(load_study(SMOKE, ["data=data/sample.jsonl"]), directory / "rows.jsonl")


def make_row_scores(directory, monkeypatch):
    from test_placebo import made_up

    from studies.context_qa.placebo import answers as placebo_answers
    from studies.context_qa.placebo import run as placebo

    class Answered:
        """An experiment whose model is not asked."""

        rows, described = [1, 2], {"model": "tiny"}

        def __init__(self, *_):
            pass

        def answered(self, places):
            yield from ((place, made_up([[1] * 18])[0]) for place in places)

    monkeypatch.setattr(placebo_answers, "Experiment", Answered)
    arguments = argparse.Namespace(model=None, overrides=(), data="", rows=2, output=directory / "scores.jsonl")

    def make():
        gc.collect()  # a process that ended would have let go its lock
        placebo.run(arguments)

    return make


def make_feedback(directory, monkeypatch):
    from sft.run import feedback

    monkeypatch.setattr(feedback, "read_bytes", lambda path: b"")  # else there would be a line more each time
    rating = feedback.Rating(instruction="問い", input="", said="答え" * 50, model="tuned", rating="good")
    return lambda: feedback.rate(directory, rating, None)


def make_begun_trackers(directory):
    from sft.training.trackers import Begun

    state = SimpleNamespace(is_world_process_zero=True)
    return lambda: Begun(["tensorboard"], directory).on_train_begin(None, state, None)


def make_saved_session(directory):
    from sft.ask.session import Asked, Session

    answerer = SimpleNamespace(generation={})
    session = Session(answerer, "tuned", [], input, asked=[Asked("問い", "", [], "答え" * 50, "eos")] * 9)
    return lambda: session.take(f"/save {directory / 'rows.jsonl'}")


WRITERS = [
    make_manifest, make_split, make_start_of_a_run, make_log, make_samples, make_loss_plot, make_run_page,
    make_checkpoint, make_template, make_export, make_encoded_rows, make_answers, make_predictions, make_record,
    make_scores_and_report, make_comparison, make_sweep, make_report_of_a_sweep, make_rating_sheet, make_preferences,
    make_report_of_a_study, make_scores_of_a_study, make_answers_of_a_server, make_judgement, make_row_scores,
    make_counts_of_an_article, make_rows_with_distractors, make_cleaned_rows, make_feedback,
    make_saved_session, make_begun_trackers,
]  # fmt: skip
SLOW_WRITERS = make_scores_and_report, make_comparison, make_report_of_a_sweep, make_report_of_a_study
"""Those that draw: in the fast tests each writes once, whole."""
EACH_WRITER = [
    pytest.param(
        writer,
        id=writer.__name__.removeprefix("make_"),
        marks=[pytest.mark.slow] if writer in SLOW_WRITERS else [],
    )
    for writer in WRITERS
]
MAKE_NEW_FILES = make_rating_sheet, make_answers, make_cleaned_rows, make_rows_with_distractors
"""Those that replace nothing."""


@pytest.fixture
def maker(request, tmp_path, monkeypatch):
    """Prepares one of `WRITERS` in a directory of its own; returns the directory and the function."""

    def prepare(writer):
        directory = tmp_path / writer.__name__
        directory.mkdir()
        given = {"directory": directory, "monkeypatch": monkeypatch}
        wanted = {
            name: given.get(name) or request.getfixturevalue(name) for name in inspect.signature(writer).parameters
        }
        return directory, writer(**wanted)

    return prepare


def held(directory: Path) -> dict[str, bytes]:
    """What is in the files of a directory, hidden ones aside."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not re.search(r"(^|/)\.", name)}


def left_behind(directory: Path) -> list[str]:
    """Hidden files and directories of the one way itself."""
    pattern = re.compile(r"\..*\.(writing-[0-9a-f]{8}|unfinished|replaced)")
    return [path.name for path in directory.rglob(".*") if pattern.fullmatch(path.name)]


def test_every_place_that_writes_is_in_the_table(maker, monkeypatch) -> None:
    """So a new one fails here until it is."""
    calls = {
        f"{path}:{function.name}"
        for path, tree in SOURCES.items() if path != "sft/system/files.py"
        for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("write_whole", "whole_file")
    }  # fmt: skip
    seen = set()
    whole = files._file_beside

    def noted(path):
        frame = sys._getframe()
        while (name := frame.f_code.co_filename.removeprefix(f"{ROOT}/")) not in SOURCES or name.endswith("/files.py"):
            frame = frame.f_back
        seen.add(f"{name}:{frame.f_code.co_name}")
        return whole(path)

    monkeypatch.setattr(files, "_file_beside", noted)
    for writer in WRITERS:
        _, make = maker(writer)
        make()
    # The first has its own test of faults; the others write into the directory of an export, which is whole or not
    # there, and need llama.cpp.
    others = {"sft/system/progress.py:remove", "sft/export/gguf/convert.py:write_gguf", "sft/export/export.py:add_gguf"}
    assert calls - seen == others


def states(directory: Path, make, replaces: bool):
    """What `make` makes, and what was there before: the same with a line more, or nothing where it replaces nothing."""
    before = held(directory)
    make()
    new = {name: content for name, content in held(directory).items() if before.get(name) != content}
    assert new
    assert not left_behind(directory)
    old = {name: before.get(name, content + b"\n" if replaces else None) for name, content in new.items()}
    return old, new


def put(directory: Path, contents) -> None:
    for name, content in contents.items():
        (directory / name).unlink(missing_ok=True)
        if content is not None:
            (directory / name).write_bytes(content)


def check(directory: Path, old, new, count: int) -> None:
    """Every file is old or new, and at most the first `count` are new."""
    now = {name: (directory / name).read_bytes() if (directory / name).exists() else None for name in old}
    for name in now:
        assert now[name] in (old[name], new[name]), name
    assert sum(now[name] != old[name] for name in now) <= count


def count_of_files(make, monkeypatch) -> int:
    """How many files `make` writes."""
    with monkeypatch.context() as patch:
        calls = []
        place = files._place
        patch.setattr(files, "_place", lambda *paths: calls.append(paths) or place(*paths))
        make()
    return len(calls)


class Failing:
    """A file that takes some bytes and then fails with an error of this number."""

    def __init__(self, file, error):
        self.file = file
        self.error = error

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(bytes(content)[:10])
        raise OSError(self.error, os.strerror(self.error))


def failing(number: int, error: int):
    """`_file_beside`, whose file of this number fails."""
    calls, whole = iter(range(1, 100)), files._file_beside
    return lambda path: Failing(whole(path), error) if next(calls) == number else whole(path)


@pytest.mark.parametrize("writer", EACH_WRITER)
def test_a_file_that_cannot_be_written_is_a_line_and_leaves_what_was_there(writer, maker, monkeypatch, capsys) -> None:
    directory, make = maker(writer)
    old, new = states(directory, make, writer not in MAKE_NEW_FILES)
    put(directory, old)
    count = count_of_files(make, monkeypatch)
    for number in sorted({1, (count + 1) // 2, count}):
        for fault in (errno.ENOSPC, errno.EPERM) if number == 1 else (errno.EIO,):
            put(directory, old)
            with monkeypatch.context() as patch:
                patch.setattr(files, "_file_beside", failing(number, fault))
                assert os.strerror(fault) in line_of(make, capsys)
            check(directory, old, new, number - 1)
            assert not left_behind(directory)
    for size in sorted({len(content) // 2 for content in new.values()}):
        put(directory, old)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 1), limits[1]))
            said = line_of(make, capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "File too large" in said
        check(directory, old, new, len(new) - 1)
        assert not left_behind(directory)
    put(directory, old)
    make()
    assert {name: (directory / name).read_bytes() for name in new} == new


def line_of(make, capsys) -> str:
    """The one line that a command says which ends because of `make`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        make()
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("moment", [pytest.param("fsync", marks=pytest.mark.slow), "naming"])
@pytest.mark.parametrize("writer", EACH_WRITER)
def test_a_kill_leaves_what_was_there_and_nothing_after_the_next_time(writer, moment, maker, monkeypatch) -> None:
    directory, make = maker(writer)
    old, new = states(directory, make, writer not in MAKE_NEW_FILES)
    put(directory, old)
    count = count_of_files(make, monkeypatch)
    for number in sorted({1, (count + 1) // 2, count}):
        put(directory, old)
        assert killed(make, moment, number) == 9
        check(directory, old, new, number - 1)
    assert left_behind(directory)
    if writer in (*MAKE_NEW_FILES, make_encoded_rows):  # which make nothing anew that is whole
        put(directory, old)
    make()
    assert {name: (directory / name).read_bytes() for name in new} == new
    assert not left_behind(directory)


def killed(make, moment: str, number: int) -> int:
    """Do it in another process, which ends, as by kill -9, before the file of this number is synced or named."""
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100))
        owner, name = (os, "fsync") if moment == "fsync" else (files, "_place")
        does = getattr(owner, name)

        def kill(*arguments):
            ours = moment == "naming" or os.readlink(f"/proc/self/fd/{arguments[0]}").rpartition(".")[2].startswith(
                "writing-"
            )
            if ours and next(calls) == number:
                os._exit(9)
            return does(*arguments)

        setattr(owner, name, kill)
        try:
            make()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_file_is_as_any_other_and_says_what_it_is_given(tmp_path) -> None:
    path = tmp_path / "a"
    plain = tmp_path / "b"
    plain.write_text("")
    write_whole(path, ["答え\r\n", "\ud800\u2028"])
    assert path.read_bytes() == "答え\r\n\\ud800\u2028".encode()
    assert path.stat().st_mode == plain.stat().st_mode
    write_whole(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert sorted(tmp_path.iterdir()) == [path, plain]


@pytest.mark.parametrize("name", ["x" * 255, "あ" * 85])
def test_names_as_long_as_they_may_be(tmp_path, name) -> None:
    write_whole(tmp_path / name, "x")
    with pytest.raises(UserError, match="cannot be written: File name too long; choose another place"):
        write_whole(tmp_path / (name + "x"), "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_living_writer_is_left_alone(tmp_path) -> None:
    path = tmp_path / "a"
    with whole_file(path) as slow:
        slow.write(b"slow")
        write_whole(path, "quick")
        assert path.read_text() == "quick"
        assert len(left_behind(tmp_path)) == 1
    assert path.read_text() == "slow"
    assert not left_behind(tmp_path)


def test_an_interruption_leaves_what_was_there(tmp_path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")

    def interrupted():
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted())
    assert path.read_text() == "old"
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_directory_that_was_being_replaced_is_back(tmp_path, monkeypatch, moment) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "a").write_text("old")

    def replace():
        with whole_directory(target) as new:
            (new / "a").write_text("new")

    child = os.fork()
    if child == 0:
        calls, rename = iter(range(1, 100)), Path.rename
        Path.rename = lambda path, to: os._exit(9) if next(calls) == moment else rename(path, to)
        replace()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert target.exists() is (moment == 1)
    with contextlib.suppress(RuntimeError), whole_directory(target):
        raise RuntimeError
    assert held(tmp_path) == {"adapter/a": b"old"}
    assert not left_behind(tmp_path)
    replace()
    assert held(tmp_path) == {"adapter/a": b"new"}


def begun(path: Path, work: str) -> Progress:
    progress = Progress(path, 0)
    progress.begin(work)
    return progress


@pytest.mark.parametrize("damage", [b"\0" * 40 + b"\n", b'["a", 2, [1', b"\xff\n", b"[]\n", b"null\n"])
def test_finished_work_that_is_whole_is_kept_beside_what_is_damaged(tmp_path, capsys, damage) -> None:
    path = tmp_path / "answers.jsonl"
    first = begun(path, "a")
    first.add(0, ["答え", None, 0.1])
    first.add(1, ["other"])
    del first
    (kept,) = tmp_path.iterdir()
    one, two = kept.read_bytes().strip().splitlines(keepends=True)
    kept.write_bytes(one + damage + b"\n" + two)
    again = begun(path, "a")
    assert again.done == {0, 1}
    assert "1 of its lines damaged" in capsys.readouterr().err
    again.add(2, [])
    assert again.all_results() == {0: ["答え", None, 0.1], 1: ["other"], 2: []}
    again.remove()
    assert not list(tmp_path.iterdir())


def test_finished_work_under_other_settings_is_kept_for_them(tmp_path, capsys) -> None:
    path = tmp_path / "answers.jsonl"
    first = begun(path, "a")
    first.add(0, ["a's"])
    del first
    other = begun(path, "b")
    assert other.done == set()
    assert "1 jobs finished under other settings stay there" in capsys.readouterr().err
    other.add(0, ["b's"])
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(UserError, match="cannot be written: full"):
            other.remove()
    assert kept.read_bytes() == before
    other.remove()
    assert begun(path, "a").all_results() == {0: ["a's"]}


def test_finished_work_that_somebody_removed_is_not_mixed_with_theirs(tmp_path) -> None:
    path = tmp_path / "answers.jsonl"
    first = begun(path, "a")
    first.add(0, ["first"])
    (tmp_path / ".answers.jsonl.unfinished-0").unlink()
    second = begun(path, "a")
    second.add(0, ["second"])
    with pytest.raises(UserError, match="somebody removed what was finished of it; start again"):
        first.all_results()
    assert second.all_results() == {0: ["second"]}


def test_a_file_system_without_locks_is_a_line(tmp_path, monkeypatch) -> None:
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UserError, match="cannot be locked: No locks available; choose a place on a local disk"):
        Progress(tmp_path / "a", 0)
    with pytest.raises(UserError, match="cannot be locked: No locks"), whole_directory(tmp_path / "b"):
        pass
    write_whole(tmp_path / "c", "c")
    assert (tmp_path / "c").read_text() == "c"
