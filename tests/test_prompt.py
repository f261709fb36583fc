"""Templates: their exact texts, and that what an adapter was trained with is what it answers with."""

import re

import pytest

from sft.prompt.template import ALPACA_EN, ALPACA_JA, TEMPLATES, PromptTemplate
from sft.system.errors import UserError


def test_the_alpaca_templates_are_the_published_ones():
    assert ALPACA_EN.render("Add.", "1, 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n"
        "### Response:\n"
    )
    assert ALPACA_JA.render("足して。") == (
        "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\n\n### 指示:\n足して。\n\n### 応答:\n"
    )


def test_the_context_first_is_the_same_prompt_in_the_other_order():
    swapped = TEMPLATES["alpaca-ja-context-first"]
    assert swapped.without_input == ALPACA_JA.without_input
    before, question, context, behind = re.split("(?=###)", ALPACA_JA.with_input)
    first = before.replace("タスクを説明する指示と、文脈のある入力の", "文脈のある入力と、タスクを説明する指示の")
    assert swapped.with_input == first + context + question + behind


def test_a_saved_template_is_read_back_the_same(tmp_path):
    ALPACA_JA.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == ALPACA_JA


def test_a_missing_or_broken_template_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"prompt_template\.json"):
        PromptTemplate.load(tmp_path)
    (tmp_path / "prompt_template.json").write_text("{}")
    with pytest.raises(UserError, match=r"prompt_template\.json"):
        PromptTemplate.load(tmp_path)
