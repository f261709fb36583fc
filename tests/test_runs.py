"""Runs side by side, their checkpoints asked, and the room they need."""

import json
import shutil
from collections import namedtuple

import pytest

from sft.checks.disk import checkpoints_at_once
from sft.generation.answerer import open_run
from sft.run.directory import lock_directory
from sft.run.provenance import provenance_of


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(trained_run, tmp_path / "runs" / "first")


def steps(run):
    return sorted(int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("checkpoint-*"))


def changed(run, **values):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    (run / "manifest.json").write_text(json.dumps(manifest | values), encoding="utf-8")


def test_a_listing_says_of_each_run_what_it_is(program, run, monkeypatch):
    second = shutil.copytree(run, run.with_name("学習二"))
    config = (second / "config.yaml").read_text(encoding="utf-8")
    (second / "config.yaml").write_text(config.replace("learning_rate: 0.01", "learning_rate: 0.5"), encoding="utf-8")
    changed(second, started="2999-01-01T00:00:00", status="running")
    broken = shutil.copytree(run, run.with_name("broken"))
    (broken / "manifest.json").write_text("{", encoding="utf-8")
    groups = {"open": {"character_f1": {"mean": 0.25, "n": 3}}, "context": {"character_f1": {"mean": None}}}
    (run / "eval").mkdir()
    (run / "eval" / "results.json").write_text(json.dumps({"systems": {"tuned": {"groups": groups}}}), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "100")

    def lines(*words):
        done = program("sft.runs.__main__", run.parent, *words)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    english = lines("--lang", "en")
    row = next(line for line in english if line[:1] == ["first"])
    assert row[1:4] == ["finished", "tiny", "sample.jsonl"]
    assert row[5:8] == ["0.250", "–", "–"]
    assert row[-1] == "MB"
    assert next(line for line in english if line[:1] == ["学習二"])[1] == "stopped"
    assert ["学習二:", "training.learning_rate=0.5"] in english
    assert next(line for line in english if line[:1] == ["broken"])[1] == "damaged"
    assert any("manifest.json" in " ".join(line) for line in english if line and line[0] != "broken")
    with lock_directory(second):
        japanese = lines("--lang", "ja")
    assert next(line for line in japanese if line[:1] == ["学習二"])[1] == "学習中"
    (run / "eval" / "results.json").write_text('{"systems": 3}', encoding="utf-8")
    assert any("results.json: is not an evaluation's results" in " ".join(line) for line in lines("--lang", "en"))


def test_the_table_stays_aligned_with_japanese_names(program, run, monkeypatch):
    from rich.cells import cell_len

    shutil.copytree(run, run.with_name("学習二"))
    monkeypatch.setenv("COLUMNS", "100")
    shown = program("sft.runs.__main__", run.parent, "--lang", "ja").stdout.splitlines()
    rows = [line for line in shown if "完了" in line]
    assert len(rows) == 2
    assert len({cell_len(line[: line.index("完了")]) for line in rows}) == 1


def test_no_run_is_one_line(program, run, tmp_path):
    assert f"{run}: is a run itself; give the directory that it is in" in program("sft.runs.__main__", run).stderr
    done = program("sft.runs.__main__", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no run here; train one" in done.stderr


def test_a_checkpoint_answers_in_the_place_of_what_the_run_ended_with(program, run):
    first, *_, last = steps(run)
    assert open_run(run).identity != open_run(run, checkpoint=first).identity
    asked = program("infer", run, "--checkpoint", first, "--instruction", "高さは？", "generation.max_new_tokens=4")
    assert asked.returncode == 0, asked.stderr
    assert f"(checkpoint {first})" in asked.stderr
    few = ("eval.rows_per_category=1", "generation.max_new_tokens=4", "eval.resamples=10")
    done = program("eval.__main__", run, "--checkpoint", first, *few)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (run / "eval").iterdir()) == [f"checkpoint-{first}"]
    about = provenance_of(run / "eval" / f"checkpoint-{first}" / "predictions.jsonl")
    assert about.deviations == [f"checkpoint {first} in place of what the run ended with"]
    (run / "checkpoints" / f"checkpoint-{last}" / "trainer_state.json").unlink()
    damaged = program("infer", run, "--checkpoint", last, "--instruction", "高さは？")
    assert damaged.returncode == 2
    assert "cannot be used: trainer_state.json is missing" in damaged.stderr
    missing = program("infer", run, "--checkpoint", 77, "--instruction", "高さは？")
    assert missing.returncode == 2
    assert f"there is no such checkpoint; those of steps {first}, {last} are there" in missing.stderr


def test_a_disk_without_room_is_said_before_anything_is_touched(program, tiny_base, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 10**5))
    words = ("configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", f"run.directory={tmp_path / 'run'}")
    done = program("train_sft", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: disk: about " in done.stderr
    assert "0.1 MB free at" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 3),
        ({"save_total_limit": 1, "keep_best": "open"}, 3),
        ({"save_total_limit": None}, 4),
        ({"save_steps": 0.5}, 2),
        ({"save_strategy": "no"}, 1),
        ({"save_strategy": "epoch", "num_train_epochs": 2.5}, 3),
        ({"save_strategy": "no", "keep_best": "open"}, 4),
        ({"save_strategy": "no", "keep_best": "open", "eval_strategy": "steps", "eval_steps": 20}, 4),
        ({"save_total_limit": None, "keep_best": "open", "eval_strategy": "steps"}, 204),
    ],
)
def test_checkpoints_that_are_there_at_one_time_are_counted(settings, most):
    usual = {"save_strategy": "steps", "save_steps": 50, "save_total_limit": 2, "num_train_epochs": 3}
    usual |= {"eval_strategy": "epoch", "logging_steps": 1}
    assert checkpoints_at_once(usual | settings, 200) == most
