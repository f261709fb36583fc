"""Templates: their exact texts, and that what an adapter was trained with is what it answers with."""

import pytest

from sft.prompt.template import ALPACA_EN, ALPACA_JA, PromptTemplate
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


def test_a_saved_template_is_read_back_the_same(tmp_path):
    ALPACA_JA.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == ALPACA_JA


def test_a_missing_or_broken_template_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"prompt_template\.json"):
        PromptTemplate.load(tmp_path)
    (tmp_path / "prompt_template.json").write_text("{}")
    with pytest.raises(UserError, match=r"prompt_template\.json"):
        PromptTemplate.load(tmp_path)
