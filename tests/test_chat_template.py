"""The chat template gives the training prompt to the letter and to the token, and renders whatever clients send."""

import json
from pathlib import Path

import pytest
from chat_corpus import CONVERSATIONS, EN, JA, TURNS, assistant, expected, parts, system, user
from tokenizers.normalizers import Strip
from tokenizers.pre_tokenizers import Metaspace, Sequence
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from sft.model.load import load_tokenizer
from sft.prompt.chat_template import as_chat_template, checked_chat_template, set_chat_template, user_message
from sft.prompt.encode import bos_ids, encode_prompt
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


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize(("template", "separator"), [(ALPACA_JA, JA), (ALPACA_EN, EN)], ids=["ja", "en"])
def test_whatever_clients_send_becomes_a_prompt(tiny_base, template, separator, adds_bos):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if adds_bos:
        begin_with_bos(tokenizer)
    set_chat_template(tokenizer, template, [])
    assert len(CONVERSATIONS) >= 40
    rendered = {
        name: tokenizer.apply_chat_template([messages], tokenize=False, add_generation_prompt=True)[0]
        for name, messages in CONVERSATIONS.items()
    }
    begin = "<|endoftext|>" * adds_bos
    assert rendered == {
        name: begin + expected(template, messages, separator) for name, messages in CONVERSATIONS.items()
    }


HEAD = "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\n\n### 指示:\n"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([*system("親切に。"), *user("首都は?")], f"親切に。\n\n{HEAD}首都は?\n\n### 応答:\n"),
        (TURNS, f"{HEAD}首都は?\n\n### 応答:\n東京です。\n\n{HEAD}人口は?\n\n### 応答:\n"),
        (user("首都は?", parts("人口は?", "面積は?")), f"{HEAD}首都は?\n\n人口は?\n面積は?\n\n### 応答:\n"),
        ([*assistant("ご用件は?"), *user("首都は?")],
         f"{HEAD}\n\n### 応答:\nご用件は?\n\n{HEAD}首都は?\n\n### 応答:\n"),
        ([*user("首都は?"), *assistant("東京")], f"{HEAD}首都は?\n\n### 応答:\n東京"),
    ],
    ids=["system", "history", "several questions", "an answer first", "an answer to go on with"],
)  # fmt: skip
def test_conversations_read_as_the_training_prompts_one_after_another(tokenizer, messages, text):
    jinja = checked_chat_template(tokenizer, ALPACA_JA, [])
    assert tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False) == text


FAMILIES = ["open-calm", "rinna", "abeja", "genji", "llama-2", "calm2", "llm-jp", "gemma-3", "qwen2.5", "llama-3.1"]


@pytest.mark.parametrize("family", [*FAMILIES, "sarashina", "llm-jp-4", "qwen3"])
def test_every_familys_tokenizer_gives_the_trainings_ids(small_base, family):
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    sample = [json.loads(line) for line in (ROOT / "data" / "sample.jsonl").open(encoding="utf-8")]
    for template in (ALPACA_JA, ALPACA_EN):
        jinja = checked_chat_template(tokenizer, template, [*QUESTIONS, *sample])  # raises where one differs
        message = user("富士山の高さは?")
        ids = tokenizer.apply_chat_template(message, chat_template=jinja, return_dict=False)
        assert ids == encode_prompt(tokenizer, template.render("富士山の高さは?"))
    assert tokenizer.chat_template is None


def test_a_space_that_training_prompts_begin_with_is_written_behind_the_bos(small_base):
    tokenizer = load_tokenizer(small_base("llama-2")["base"])
    set_chat_template(tokenizer, ALPACA_JA, QUESTIONS)
    text = tokenizer.apply_chat_template(user("首都は?"), tokenize=False)
    assert text == "<s> " + ALPACA_JA.render("首都は?")
    assert bos_ids(tokenizer) == [1]


def test_a_template_without_words_between_its_fields_cannot_be_a_chat_template():
    for text in ("{instruction}\n{input}\n", "{instruction}、{input}、{instruction}"):
        with pytest.raises(UserError, match="cannot be written as a chat template"):
            as_chat_template(PromptTemplate("custom", text, "{instruction}\n"), starts_with_bos=False)


def test_tokens_other_than_the_trainings_are_refused(tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    begin_with_bos(tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Metaspace(prepend_scheme="first"), tokenizer.backend_tokenizer.pre_tokenizer]
    )  # a space before the first word of a text, and not before the one behind a BOS token …
    tokenizer.backend_tokenizer.normalizer = Strip(right=False)  # … and none can be written there
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
