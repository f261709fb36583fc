"""A run that an earlier version finished (tests/finished_run) still answers, and is scored, exported and resumed from.

Its base is the tiny random model, which every version builds alike; its paths are relative to where it is used.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

import infer
from eval.__main__ import main as evaluate
from eval.metrics.catalogue import BY_KEY
from eval.predictions import read_predictions
from sft.data.records import DOLLY
from sft.export.__main__ import main as export

FINISHED = Path(__file__).parent / "finished_run"
QUESTION = ["--instruction", "図書館は何時に閉まりますか。"]
CONTEXT = ["--input", "みなと町図書館は、平日は午前9時から午後8時まで開いています。"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The run in a directory of its own, which is the working directory."""
    shutil.copytree(FINISHED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("run")


@pytest.fixture
def call(monkeypatch, capsys):
    def with_words(main, *words):
        monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
        main()
        return capsys.readouterr().out

    return with_words


def test_it_answers_as_it_did(run, call):
    answer = call(infer.main, run, *QUESTION, *CONTEXT)
    assert answer.startswith("歳のとき店長の�テーマ方は年ぶり発表貝類博物館申し")


def about(found):
    """The same, with numbers that need only be near: another CPU rounds otherwise."""
    if isinstance(found, dict):
        return {key: about(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(map(about, found))
    return pytest.approx(found, rel=1e-5) if isinstance(found, float) else found


def test_it_is_scored_as_it_was(run, call):
    before = json.loads((run / "eval" / "results.json").read_text())
    answers = list(read_predictions(run / "eval" / "predictions.jsonl"))
    words = ["eval.resamples=50", "generation.max_new_tokens=8"]
    with pytest.raises(SystemExit):  # nothing beside the answers says whose they are
        call(evaluate, run, *words)
    call(evaluate, run, *words, "--force")
    again = list(read_predictions(run / "eval" / "predictions.jsonl"))
    nll = ("reference_nll", "reference_nll_without_context")
    for one, other in zip(again, answers, strict=True):
        assert {key: getattr(one, key) for key in nll} == about({key: getattr(other, key) for key in nll})
        assert dataclasses.replace(one, **dict.fromkeys(nll)) == dataclasses.replace(other, **dict.fromkeys(nll))
    after = json.loads((run / "eval" / "results.json").read_text())
    found = after["systems"]["tuned"]["groups"]
    assert {scores.pop("ran_on")["mean"] for scores in found.values()} == {0}  # which that version did not count
    for group, scores in before["systems"]["tuned"]["groups"].items():
        for metric, found in scores.items():
            if (
                "facts:" in after["signatures"][metric]
            ):  # since then they know units and signs, and their signature says it
                continue
            now = after["systems"]["tuned"]["groups"][group][metric]
            if BY_KEY[metric].binary:  # since then shares near 0 and 1 have Wilson's intervals
                now, found = ({key: one[key] for key in ("mean", "n", "missing")} for one in (now, found))
            assert now == about(found), (group, metric)
    assert after["rows"].pop("under").items() <= DOLLY.items()
    assert after["rows"].pop("mixed") == {}
    assert after["rows"] == before["rows"]


def test_its_answers_are_scored_again(run, call):
    before = json.loads((run / "eval" / "results.json").read_text())
    call(evaluate, "score", run / "eval" / "predictions.jsonl", "--training-data", "rows.jsonl")
    after = json.loads((run / "eval" / "results.json").read_text())
    for system, scores in before["systems"].items():
        for metric, found in scores["groups"]["open"].items():
            assert after["systems"][system]["groups"]["open"][metric]["mean"] == found["mean"], metric


@pytest.mark.parametrize("words", [["--base-id", "none"], ["--merge"]])
def test_it_is_exported(run, call, words):
    call(evaluate, run, "eval.resamples=50", "generation.max_new_tokens=8", "--force")
    call(export, run, *words, "--output", "exported")
    card = Path("exported/README.md").read_text()
    assert "character F1" in card
    assert any(Path("exported").glob("*.safetensors"))
