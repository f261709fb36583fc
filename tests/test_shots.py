"""Examples in prompts: which training rows they are, how they are shown, and what is said where they do not fit."""

import json
import shutil
from pathlib import Path

import pytest
from made_up import on_disk
from small_models import chat_tokenizer

from eval.answering.shots import draw_shots
from eval.predictions import read_predictions
from sft.data.records import Example
from sft.prompt.shots import BRIEFLY, Shot, briefly, render_with_shots
from sft.prompt.template import ALPACA_JA, chat_template
from sft.system.errors import UserError

SHOTS = [Shot("首都は？", "日本の首都は東京です。", "東京"), Shot("空の色は？", "", "青")]


def row(index: str, instruction: str, context: str = "", **fields) -> Example:
    return Example(index, instruction, context, "答え", "", **fields)


TRAINED = on_disk(
    [
        *(row(f"c{n}", f"文脈{n}の問い", f"文脈{n}です。") for n in range(6)),
        row("same", "別の問い", "　問われた文脈です。"),
        row("longer", "もう一つの問い", "題名 [SEP] 問われた文脈です。続きもあります。"),
        row("asked", "高さは？", "よそ"),
        *(row(f"o{n}", f"問い{n}") for n in range(4)),
        row("talk", "それから？", history=(("user", "やあ"), ("assistant", "はい"))),
    ]
)


def test_examples_are_of_the_group_and_never_give_the_context_or_the_question_away() -> None:
    asked = [row("x", "高さは？", "問われた文脈です。"), row("y", "問い1")]
    first, second = draw_shots(asked, TRAINED, 3, seed=0)
    assert {shot.group for shot in first} == {"context"}
    assert {shot.group for shot in second} == {"open"}
    everything = draw_shots(asked[:1], TRAINED, 6, seed=0)[0]
    assert sorted(shot.index for shot in everything) == [f"c{n}" for n in range(6)]
    assert "y" not in {shot.instruction for shot in second}
    assert {shot.index for shot in second} == {"o0", "o2", "o3"}


def test_the_seed_alone_decides_and_every_row_draws_its_own() -> None:
    asked = [row(str(n), f"本題{n}", f"本文{n}") for n in range(8)]
    drawn = draw_shots(asked, TRAINED, 2, seed=1)
    assert drawn == draw_shots(asked, TRAINED, 2, seed=1)
    assert drawn[3:] == draw_shots(asked[3:], TRAINED, 2, seed=1)
    assert drawn != draw_shots(asked, TRAINED, 2, seed=2)
    assert len({tuple(shot.index for shot in shots) for shots in drawn}) > 2
    assert draw_shots(asked, TRAINED, 0, seed=1) == []


def test_too_few_examples_and_none_at_all_are_one_line() -> None:
    with pytest.raises(UserError, match=r"eval.shots 5: of the training rows only 3 of group open .* set it to 3"):
        draw_shots([row("y", "問い1")], TRAINED, 5, seed=0)
    with pytest.raises(UserError, match="an adapter without its run"):
        draw_shots([row("y", "問い1")], None, 1, seed=0)


def test_alpaca_shows_filled_templates_one_after_another() -> None:
    prompt = render_with_shots(ALPACA_JA, SHOTS, "海の色は？")
    blocks = [
        ALPACA_JA.render("首都は？", "日本の首都は東京です。") + "東京\n\n",
        ALPACA_JA.render("空の色は？") + "青\n\n",
        ALPACA_JA.render("海の色は？"),
    ]
    assert prompt == "".join(blocks)
    assert render_with_shots(ALPACA_JA, [], "海の色は？") == ALPACA_JA.render("海の色は？")
    assert briefly("海の色は？") == f"海の色は？\n{BRIEFLY}"


def test_a_chat_template_shows_them_as_earlier_turns(tmp_path: Path) -> None:
    template = chat_template(chat_tokenizer("qwen2_5", tmp_path / "chat"))
    history = [("system", "短く。"), ("user", "やあ"), ("assistant", "はい")]
    prompt = render_with_shots(template, SHOTS, "海の色は？", "海は青い。", history)
    turns = [
        ("system", "短く。"),
        ("user", "首都は？\n\n日本の首都は東京です。"),
        ("assistant", "東京"),
        ("user", "空の色は？"),
        ("assistant", "青"),
        *history[1:],
    ]
    assert prompt == template.render("海の色は？", "海は青い。", turns)
    assert prompt.special_spans


def test_an_evaluation_says_which_examples_it_showed(trained_run: Path, program, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    rows = [{"instruction": "色は？", "input": text, "output": "赤"} for text in ("", "りんごは赤い。", "赤い。" * 900)]
    (tmp_path / "few.json").write_text(json.dumps(rows), encoding="utf-8")
    words = [
        run,
        f"eval.data={tmp_path / 'few.json'}",
        "generation.max_new_tokens=2",
        "eval.resamples=20",
        "eval.seed=3",
    ]
    result = program("eval.__main__", *words, "eval.shots=2", "eval.brief=true")
    assert result.returncode == 0, result.stderr
    assert "warning: eval.shots: the prompts of 1 of 3 rows have room for fewer than 2 examples in" in result.stderr
    trained = set(json.loads((run / "split.json").read_text())["train"])
    for answer in read_predictions(run / "eval" / "few" / "predictions.jsonl"):
        assert answer.prompt.count("### 応答:") == answer.prompt.count(BRIEFLY) == 1 + len(answer.shots)
        assert set(answer.shots) <= trained
        assert len(answer.shots) == 2 or len(answer.example.input) > 500
        assert not answer.context_shortened
        assert answer.example.instruction == "色は？"
    record = json.loads((run / "eval" / "few" / "answers.json").read_text())["provenance"]
    assert (record["shots"], record["seed"], record["brief"]) == (2, 3, True)
    told = "2 examples of training rows in each prompt (seed 3); a short answer asked for"
    assert told in " ".join(result.stdout.split())
    assert told in (run / "eval" / "few" / "report.md").read_text(encoding="utf-8")
    file = run / "eval" / "few" / "predictions.jsonl"
    compared = program("eval.__main__", "compare", f"{file}:base", f"{file}:tuned", "--output", tmp_path / "compared")
    assert "2 examples in the prompt; a short answer asked for" in compared.stderr
    again = program("eval.__main__", *words, "eval.brief=true")
    assert again.returncode == 2
    assert "other shots" in again.stderr
