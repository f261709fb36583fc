"""The benchmarks: every way of training that is timed trains the same, and every step and aim is readable."""

import argparse
import json
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.training import main, measure


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
