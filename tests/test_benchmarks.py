"""The benchmarks: every way of training that is timed trains the same, and every step and aim is readable."""

import argparse
import json
import operator
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks import __main__ as benchmarks
from benchmarks import elsewhere, training
from benchmarks.elsewhere import write
from benchmarks.training import measure, prepare
from benchmarks.turns import in_turns


@pytest.mark.parametrize(
    ("family", "variants"),
    [
        pytest.param(  # rows are longer than its window
            "gemma-3", ("packed", "padded", "rebalanced", "trl", "trl-packed-plain"), marks=pytest.mark.slow
        ),
        (None, ("packed", "padded", "alpaca", "trl")),
    ],
)
def test_what_is_timed_trains_the_same(family, variants, small_base, tiny_base):
    base = small_base(family)["base"] if family else tiny_base
    words = {"base": base, "data": "data/sample.jsonl", "dtype": "float32", "rows": 6, "max_length": 2048}
    settings = {"answers_only": False, "row_tokens": None}
    found = [measure(argparse.Namespace(**words, **settings, only=variant)) for variant in variants]
    assert {one["tokens"] for one in found} == {found[0]["tokens"]}
    for what in ("loss", "gradient_norm"):
        assert [one[what] for one in found] == pytest.approx([found[0][what]] * len(found), rel=1e-5)


def test_rows_of_a_wanted_length_are_that_long_whatever_they_say(tiny_base, tmp_path):
    data = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"{number}は偶数ですか。", "input": "", "output": "x"} for number in range(2)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    words = {"base": tiny_base, "data": str(data), "dtype": "float32", "rows": 2, "max_length": 1024}
    arguments = argparse.Namespace(**words, answers_only=False, row_tokens=512)
    assert [len(row) for row in prepare(arguments, str(tmp_path)).encoded["input_ids"]] == [512, 512]


def test_every_step_finds_its_measures_and_they_are_held_against_their_aims(monkeypatch, capsys, tmp_path):
    (tmp_path / "adapter").mkdir()
    monkeypatch.setattr(benchmarks, "RUN", tmp_path)
    printed = "".join(f"ratio {ratio} 0.3\n" for ratio in ("help_seconds", "training_length", "nobody_asked", "x-y"))
    own = "".join(f"ratio {ratio} 4\n" for step in benchmarks.STEPS for ratio in step.get("ratios", {}))
    done = SimpleNamespace(stdout=printed + own, stderr="", returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: done)
    values: dict[str, float] = {}
    arguments = argparse.Namespace(data="rows.jsonl", repeats=2)
    assert not any(benchmarks.run(step, arguments, values) for step in benchmarks.STEPS)
    named = {name for step in benchmarks.STEPS for name in step.get("ratios", {}).values()}
    assert values.keys() == named | {"help_seconds", "training_length"}
    assert values.keys() <= benchmarks.MEASURES.keys()
    capsys.readouterr()
    benchmarks.show(values, 60)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0.30", "≤", "0.3", "yes"] in [row[-4:] for row in rows]
    assert ["4.00", "≤", "1.0", "no"] in [row[-4:] for row in rows]


@pytest.mark.parametrize(
    ("run", "words", "message"),
    [
        (training.main, ["--rows", "0"], "--rows: must be at least 1, got 0"),
        (training.main, ["--repeats", "-1"], "--repeats: must be at least 1, got -1"),
        (benchmarks.main, ["--only", "training,speed"], "--only: speed is none of preparation, training, answering"),
    ],
)
def test_a_wrong_option_is_a_line_before_anything_is_measured(run, words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_another_environment_is_given_is_the_same_step(tiny_base, tmp_path):
    words = {"base": tiny_base, "data": "data/sample.jsonl", "dtype": "float32", "rows": 3, "max_length": 2048}
    arguments = argparse.Namespace(**words, answers_only=False, row_tokens=None, only="packed")
    write(prepare(arguments, str(tmp_path)), tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert {row["labels"][0] for row in rows} == {-100}
    supervised = [sum(label != -100 for label in row["labels"]) for row in rows]
    with torch.no_grad():
        losses = [model(**{key: torch.tensor([ids]) for key, ids in row.items()}).loss.item() for row in rows]
    loss = sum(map(operator.mul, losses, supervised)) / sum(supervised)
    assert loss == pytest.approx(measure(arguments)["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("packed,llama-factory", "llama-factory: its environment is not there, or not whole: make nowhere/.installed"),
        ("packed,bugs", "--variants: bugs is none of packed, padded, rebalanced, "),
    ],
)
def test_a_variant_that_is_not_there_is_said_before_a_base_is_made(variants, message, monkeypatch, capsys):
    monkeypatch.setattr(elsewhere, "ENVIRONMENT", Path("nowhere"))
    monkeypatch.setattr(training, "random_base", None)
    monkeypatch.setattr("sys.argv", ["benchmarks.training", "--variants", variants])
    with pytest.raises(SystemExit, match="2"):
        training.main()
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_variant_that_fails_ends_all_with_its_own_status():
    with pytest.raises(SystemExit, match="1"):
        in_turns("no_such_module", {"first": []}, 1)
