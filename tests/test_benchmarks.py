"""The benchmarks: every way of training that is timed trains the same, and every step and aim is readable."""

import argparse
import json
import operator
import subprocess
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks import __main__ as benchmarks
from benchmarks import elsewhere
from benchmarks.elsewhere import write
from benchmarks.training import main, measure, prepare


def test_what_is_timed_trains_the_same(tiny_base):
    found = []
    for variant in ("packed", "padded", "alpaca", "trl"):
        words = {"base": tiny_base, "data": "data/sample.jsonl", "dtype": "float32", "rows": 6, "max_length": 2048}
        settings = {"answers_only": False, "row_tokens": None, "only": variant}
        found.append(measure(argparse.Namespace(**words, **settings)))
    assert {one["tokens"] for one in found} == {found[0]["tokens"]}
    for what in ("loss", "gradient_norm"):
        assert [one[what] for one in found] == pytest.approx([found[0][what]] * 4, rel=1e-5)


def test_rows_of_a_wanted_length_are_that_long(tiny_base, monkeypatch, capsys):
    words = ["--base", str(tiny_base), "--rows", "2", "--row-tokens", "128", "--only", "packed"]
    monkeypatch.setattr("sys.argv", ["benchmarks.training", *words])
    main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tokens"] == 2 * 128


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
        (main, ["--rows", "0"], "--rows: must be at least 1, got 0"),
        (main, ["--repeats", "-1"], "--repeats: must be at least 1, got -1"),
        (main, ["--base", "somewhere", "--variants", "packed,fast"], "--variants: fast is none of packed, padded, "),
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


def test_an_environment_that_is_not_there_is_said_before_anything_is_loaded(tiny_base, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(elsewhere, "ENVIRONMENT", tmp_path)
    words = ["--base", str(tiny_base), "--variants", "packed,llama-factory"]
    monkeypatch.setattr("sys.argv", ["benchmarks.training", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    remedy = f"make {tmp_path}/.installed"
    assert capsys.readouterr().err == f"error: llama-factory: its environment is not there, or not whole: {remedy}\n"
