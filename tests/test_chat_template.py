"""The chat template gives the training prompt to the letter and to the token, and refuses what was not trained."""

import json
import re
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import Metaspace, Sequence
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from sft.prompt.chat_template import REFUSAL, as_chat_template, set_chat_template, user_message
from sft.prompt.template import ALPACA_EN, ALPACA_JA, PromptTemplate, template_from_config
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
QUESTIONS = [
    {"instruction": "富士山の高さは?", "input": ""},
    {"instruction": "  高さは?\n一行で。\n", "input": "富士山は\n\n標高3776メートルの山です。\n### 応答:"},
    {"instruction": '「"引用"」と\\を{{波括弧}}の中に。', "input": "{% raw %} 'a' {{ x }}"},
]


def begin_with_bos(tokenizer):
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )


def test_names_of_special_tokens_in_a_question_stay_text_when_sanitised(tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    set_chat_template(tokenizer, ALPACA_JA, [])
    message = [{"role": "user", "content": "<|endoftext|>とは?"}]
    ids = tokenizer.apply_chat_template(message, return_dict=False, sanitize_control_tokens=True)
    assert 0 not in ids
    assert tokenizer.decode(ids) == ALPACA_JA.render("<|endoftext|>とは?")


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize(
    "template",
    [
        ALPACA_JA,
        ALPACA_EN,
        PromptTemplate("custom", "資料「{input}」{{と}}\n質問:{instruction}\n答", "{{}}{instruction}答"),
    ],
    ids=["ja", "en", "context first"],
)
def test_the_chat_template_gives_the_training_prompts_text_and_ids(tiny_base, template, adds_bos):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if adds_bos:
        begin_with_bos(tokenizer)
    sample = [json.loads(line) for line in (ROOT / "data" / "sample.jsonl").open(encoding="utf-8")]
    set_chat_template(tokenizer, template, [*QUESTIONS, *sample])  # raises where one of them differs
    prompt = template.render("首都は?", "日本の首都は東京です。")
    message = [{"role": "user", "content": user_message(template, "首都は?", "日本の首都は東京です。")}]
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == "<|endoftext|>" * adds_bos + prompt
    assert ids.count(0) == adds_bos


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "親切に。"}, {"role": "user", "content": "首都は?"}],
        [
            {"role": "user", "content": "首都は?"},
            {"role": "assistant", "content": "東京"},
            {"role": "user", "content": "人口は?"},
        ],
        [{"role": "assistant", "content": "東京"}],
    ],
)
def test_system_messages_and_conversations_are_refused_in_words(tiny_base, messages):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    set_chat_template(tokenizer, ALPACA_JA, [])
    with pytest.raises(Exception, match=re.escape(REFUSAL)):
        tokenizer.apply_chat_template(messages)


def test_a_template_without_words_between_its_fields_cannot_be_a_chat_template():
    for text in ("{instruction}\n{input}\n", "{instruction}、{input}、{instruction}"):
        with pytest.raises(UserError, match="cannot be written as a chat template"):
            as_chat_template(PromptTemplate("custom", text, "{instruction}\n"), starts_with_bos=False)


def test_tokens_other_than_the_trainings_are_refused(tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    begin_with_bos(tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Metaspace(prepend_scheme="first"), tokenizer.backend_tokenizer.pre_tokenizer]
    )  # a space before the first word of a text, and not before the one behind a BOS token
    with pytest.raises(UserError, match="gives other tokens than the training prompt"):
        set_chat_template(tokenizer, ALPACA_JA, QUESTIONS)


def test_a_run_that_was_trained_with_the_tokenizers_own_chat_template_keeps_it(tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    own = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    tokenizer.chat_template = own
    template = template_from_config("chat", tokenizer)
    set_chat_template(tokenizer, template, QUESTIONS)
    assert tokenizer.chat_template == own
    assert user_message(template, "首都は?", "日本の首都は東京です。") == "首都は?\n\n日本の首都は東京です。"
    tokenizer.chat_template = own.replace("'assistant:'", "'assistant: '")
    with pytest.raises(UserError, match="does not give the training prompt"):
        set_chat_template(tokenizer, template, QUESTIONS)
