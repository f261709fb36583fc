"""Warnings about settings that hurt: which rows they count, what they advise, and that they reach the terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

from sft.config.repetition_penalty import penalty_hazards
from sft.plan.hazards import truncation_hazards

ROOT = Path(__file__).parents[1]
EOS = 0
CONTEXTS = ["", "富士山は高い。", "", "東京は首都。"]
PROMPTS = [[5, 6], [5, 7, 8], [EOS, 5], [9]]
STRONG = (
    "a repetition penalty of {} makes answers short and keeps what they need out of them (4 rows to answer). Counting "
    "generated tokens alone, 1.2 left 56 of 58 right answers of Qwen2.5-Coder-1.5B-Instruct, 1.5 left 32; "
    "set generation.repetition_penalty=1.2 or less"
)
QUOTES = (
    "the repetition penalty of {} counts the prompt, so answers cannot quote their context freely (2 rows with a "
    "context). Of 80 right answers of gemma-3-270m 1.05 left 72, 1.1 67, 1.2 53, 5.0 none; "
    "set generation.repetition_penalty_scope=generated"
)
STOPS = (
    "the repetition penalty of {} counts the prompt, so answers may not stop "
    "(1 row with the end-of-text token in the prompt); set generation.repetition_penalty_scope=generated"
)


@pytest.mark.parametrize(
    ("penalty", "scope", "expected"),
    [
        (1.0, "all", []),
        (0.9, "all", []),
        (1.2, "generated", []),
        (1.29, "generated", []),
        (1.3, "generated", [STRONG]),
        (1.05, "all", [QUOTES, STOPS]),
        (5.0, "all", [STRONG, QUOTES, STOPS]),
    ],
)
def test_a_penalty_is_warned_of_with_the_rows_it_hurts(penalty, scope, expected):
    settings = {"repetition_penalty": penalty, "repetition_penalty_scope": scope, "temperature": 0.7}
    warnings = penalty_hazards(settings, CONTEXTS, PROMPTS, EOS)
    assert warnings == [text.format(f"{penalty:g}") for text in expected]


def test_settings_that_hurt_no_row_are_not_warned_of():
    settings = {"repetition_penalty": 1.2, "repetition_penalty_scope": "all"}
    assert penalty_hazards(settings, ["", ""], [[5], [6]], EOS) == []
    assert penalty_hazards(settings | {"repetition_penalty": 5.0}, [], [], EOS) == []
    assert penalty_hazards({}, CONTEXTS, PROMPTS, EOS) == []  # effective settings leave a penalty of 1 out


def test_prompts_are_not_encoded_where_the_penalty_does_not_count_them():
    def prompts():
        raise AssertionError("encoded for nothing")
        yield

    assert penalty_hazards({"repetition_penalty": 1.2}, CONTEXTS, prompts(), EOS) == []


def test_a_category_that_loses_more_than_one_row_in_a_hundred_is_named():
    fates = {
        ("open_qa", "whole"): 99, ("open_qa", "end cut off"): 1,  # exactly 1%
        ("closed_qa", "whole"): 45, ("closed_qa", "end cut off"): 4, ("closed_qa", "dropped"): 1,
        ("summarization", "dropped"): 1,
    }  # fmt: skip
    remedy = "set data.truncation=context or a larger training.max_length"
    assert truncation_hazards(fates, "end", 256) == [
        "closed_qa loses answers to training.max_length 256: "
        f"4 cut off before the end and 1 dropped of 50 training rows (10.0%); {remedy}",
        f"summarization loses answers to training.max_length 256: 1 dropped of 1 training row (100.0%); {remedy}",
    ]


def test_a_shortened_context_loses_no_answer_and_a_dropped_row_does():
    fates = {("closed_qa", "context shortened"): 90, ("closed_qa", "dropped"): 10}
    assert truncation_hazards({("closed_qa", "context shortened"): 90}, "context", 256) == []
    assert truncation_hazards(fates, "context", 256) == [
        "closed_qa loses answers to training.max_length 256: 10 dropped of 100 training rows (10.0%); "
        "set a larger training.max_length"
    ]


def test_the_articles_settings_are_warned_of_and_still_run(program, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    words = [f"model.base={tiny_base}", "model.device=cpu", "data.path=data/sample.jsonl", "training.warmup_steps=0"]
    result = program(
        "train_sft", "configs/calm7b-article.yaml", *words, f"run.directory={tmp_path / 'run'}", "--dry-run"
    )
    assert result.returncode == 0, result.stderr
    page = " ".join(result.stdout.split())
    assert "look warning a repetition penalty of 5 makes" in page
    assert "(27 rows to answer)" in page
    assert "(11 rows with a context)" in page
    assert "1.5 left 32 → set generation.repetition_penalty=1.2 or less" in page
    assert "5.0 none → set generation.repetition_penalty_scope=generated" in page
    assert "look warning closed_qa loses answers to training.max_length 256: " in page
    assert "warning: " not in result.stderr


def test_warnings_need_no_torch():
    code = (
        "import sys, sft.plan.hazards, sft.generation.settings; "
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
