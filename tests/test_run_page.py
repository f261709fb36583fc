"""`run.html`: one file that shows a training as far as it has come, in the reader's language, and runs nothing."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.split import split_rows
from sft.system import texts
from sft.training.loss_plot import plot_loss, whole_steps
from sft.training.page import SHOWN_ANSWERS, RunPage, write_page

ANSWER = {
    "row": "12", "index": "12", "group": "open", "question": "富士山の高さは？", "context": "",
    "reference": "3776メートルです。", "finish_reason": "eos",
}  # fmt: skip


def log_record(step, **more):
    return {
        "step": step, "loss": 3 - step / 10, "learning_rate": 1e-4, "tokens_per_second": 100.0,
        "memory_peak_bytes": 2**30,
    } | more  # fmt: skip


def add(path, *records):
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def run(tmp_path):
    """The configuration and plan of a training that has done ten steps, with validations at 5 and 10."""
    (tmp_path / "broken.jsonl").write_text('{"instruction": "問い", "output": ""}\n' * 2)
    config = load_config("configs/tiny.yaml", [f"run.directory={tmp_path}"])
    data = load_data("data/sample.jsonl")
    data.drop_counts["empty output", ""] = 2
    plan = SimpleNamespace(
        data=data, split=split_rows(data.rows, 0.1, 0.1), steps=20, train=SimpleNamespace(fates=Counter())
    )
    for step in range(1, 11):
        add(tmp_path / "log.jsonl", log_record(step))
        if step % 5 == 0:
            add(tmp_path / "log.jsonl", {"step": step, "eval_open_loss": 2.5 - step / 10, "eval_open_rows": 7})
            add(tmp_path / "samples.jsonl", ANSWER | {"step": step, "answer": f"<script>alert({step})</script>"})
    return config, plan


def page_of(run, step=10, ended=False):
    write_page(*run, step, ended)
    return (run[0].run_directory / "run.html").read_text(encoding="utf-8")


def test_the_page_shows_losses_answers_rows_and_settings_in_one_file(run, monkeypatch):
    monkeypatch.setattr(texts, "_asked", "en")
    page = page_of(run)
    assert '<html lang="en">' in page
    assert "10 of 20 optimizer steps" in page
    assert page.count("<svg") == 4
    assert "open (7 rows)" in page
    assert "2.0000" in page
    assert "1.5000" in page
    assert "step 5 (eos)" in page
    assert "step 10 (eos)" in page
    assert "3776メートルです。" in page
    assert "empty output" in page
    assert "training.total_<wbr>batch_<wbr>size" in page
    assert not re.search(r"<script|<link|<img|(?:src|href)=\"(?!#)", page)
    assert "&lt;script&gt;alert(5)" in page


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_finished_trainings_page_speaks_of_no_more_to_come(run, language):
    texts.speak(language)
    config, plan = run
    for name in ("log.jsonl", "samples.jsonl"):
        (config.run_directory / name).unlink()
    add(config.run_directory / "log.jsonl", log_record(1), log_record(2))
    plan.steps = 2
    page = page_of(run, 2)
    assert {"en": "2 optimizer steps, all done", "ja": "全2ステップ完了"}[language] in page
    assert "written anew" not in page
    assert "書き直されます" not in page


@pytest.mark.parametrize("language", ["en", "ja"])
def test_nor_does_that_of_a_training_that_patience_ended(run, language):
    texts.speak(language)
    assert re.search("written anew|書き直されます", page_of(run))
    page = page_of(run, ended=True)
    assert {"en": "ended after step 10 of 20", "ja": "20ステップ中10ステップで学習を終えました"}[language] in page
    assert not re.search("written anew|書き直されます", page)


@pytest.mark.parametrize("steps", [[1], [7], [1, 2]], ids=str)
def test_steps_are_whole_numbers_also_where_there_are_few(steps):
    axes = Figure().subplots()
    axes.plot(steps, [3.0] * len(steps))
    assert any(tick % 1 for tick in axes.get_xticks())
    whole_steps(axes)
    assert set(steps) <= set(axes.get_xticks())
    assert not any(tick % 1 for tick in axes.get_xticks())


def test_it_is_japanese_where_the_reader_is(run, monkeypatch):
    monkeypatch.setattr(texts, "_asked", "ja")
    page = page_of(run)
    assert '<html lang="ja">' in page
    assert "20ステップ中10ステップ完了" in page
    assert "open（文脈なし）、7件" in page
    assert "outputが空" in page


def test_many_answers_are_the_first_and_the_last_and_the_page_says_so(run, monkeypatch):
    monkeypatch.setattr(texts, "_asked", "en")
    for step in range(15, 80, 5):
        add(run[0].run_directory / "samples.jsonl", ANSWER | {"step": step, "answer": "答え"})
    page = page_of(run)
    assert page.count("(eos)") == SHOWN_ANSWERS
    assert "(7 answers between the first and the next one here: samples.jsonl)" in page


def test_a_training_without_validation_has_a_page_too(run, monkeypatch):
    monkeypatch.setattr(texts, "_asked", "en")
    directory = run[0].run_directory
    (directory / "samples.jsonl").unlink()
    (directory / "log.jsonl").unlink()
    page = page_of(run, 0)
    assert "Answers as they change" not in page
    assert "Where the rows went" in page


def test_it_is_written_once_a_step_and_by_one_process(run):
    written = []
    page = RunPage(*run)
    page.on_save = lambda *_: written.append(1)
    state = SimpleNamespace(is_world_process_zero=True, global_step=10)
    page.on_evaluate(None, state, SimpleNamespace(should_save=True))
    assert not written
    page.on_evaluate(None, state, SimpleNamespace(should_save=False))
    assert written == [1]
    RunPage(*run).on_save(None, SimpleNamespace(is_world_process_zero=False, global_step=10), None)
    assert not (run[0].run_directory / "run.html").exists()


def test_checkpoints_moments_apart_share_a_page(run, monkeypatch):
    steps, now = [], [100.0]
    monkeypatch.setattr("sft.training.page.write_page", lambda config, plan, step: steps.append(step))
    monkeypatch.setattr("sft.training.page.time.monotonic", lambda: now[0])
    page = RunPage(*run)
    for step, seconds in ((1, 0), (2, 9), (3, 2), (4, 60)):
        now[0] += seconds
        page.on_save(None, SimpleNamespace(is_world_process_zero=True, global_step=step), None)
    assert steps == [1, 3, 4]


def test_the_picture_of_the_loss_tells_groups_apart_without_colour(run, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **more: seen.append(figure) or savefig(figure, *args, **more)
    )
    directory = run[0].run_directory
    add(directory / "log.jsonl", {"step": 10, "eval_context_loss": 2.0, "eval_context_rows": 1})
    plot_loss(directory / "log.jsonl", directory / "loss.png", "mine", "context")
    axes = seen[0].axes[0]
    assert axes.get_title() == "mine: loss by step"
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["training", "validation: open (7 rows)", "validation: context (1 row)", "best context"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in axes.get_lines()}) == 4
    assert axes.get_lines()[-1].get_xydata().tolist() == [[10, 2.0]]
