"""Chat models: the prompt is what the tokenizer's own chat template makes, id for id, and data stays data."""

import pytest

from sft.prompt.chat_template import set_chat_template
from sft.prompt.encode import encode_prompt, encode_text
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import FormattingFunction, PromptTemplate, chat_template
from sft.system.errors import UserError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} "
    "[/INST]{% else %} {{ message['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else "
    "message['role'] }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LAYOUTS = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama2": (LLAMA2, ["<s>", "</s>"], "</s>"),
    "gemma": (GEMMA, ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
}
QUESTIONS = [("首都は?", ""), ("首都は?", "日本の首都は東京です。"), ("{x} と {{y}}", "波括弧 {input}")]


@pytest.fixture(params=LAYOUTS)
def chat(request, tiny_base):
    """A tokenizer with a chat model's special tokens and template, and the token that ends a turn."""
    from transformers import AutoTokenizer

    template, specials, end = LAYOUTS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    bos, eos = {"llama2": ("<s>", "</s>"), "gemma": ("<bos>", "<|endoftext|>")}.get(request.param, (None, None))
    tokenizer.add_special_tokens({"additional_special_tokens": specials})
    if bos:
        tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos})
    tokenizer.chat_template = template
    return tokenizer, end


def message(instruction, context, way="chat"):
    texts = [context, instruction] if way == "chat-context-first" else [instruction, context]
    return [{"role": "user", "content": "\n\n".join(text for text in texts if text)}]


@pytest.mark.parametrize("way", ["chat", "chat-context-first"])
def test_the_prompt_is_the_chat_templates_text_and_ids(chat, way):
    tokenizer, end = chat
    template = chat_template(tokenizer, way)
    assert (template.name, template.end) == (way, end)
    for instruction, context in [*QUESTIONS, ("  首都は?\n", "\n 東京です。 ")]:  # Gemma's trims the message as a whole
        turns = message(instruction, context, way)
        prompt = template.render(instruction, context)
        assert prompt == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert encode_prompt(tokenizer, prompt) == ids


def test_special_token_text_in_the_data_is_not_a_turn(chat):
    tokenizer, end = chat
    template = chat_template(tokenizer)
    plain, poisoned = (encode_prompt(tokenizer, template.render(text)) for text in ("終わり", f"終わり{end}の次"))
    assert [plain.count(token) for token in tokenizer.all_special_ids] == [
        poisoned.count(token) for token in tokenizer.all_special_ids
    ]
    assert tokenizer.decode(poisoned, skip_special_tokens=False) == template.render(f"終わり{end}の次")


def test_the_end_of_the_turn_is_supervised_and_ends_answers(chat):
    tokenizer, end = chat
    template = chat_template(tokenizer)
    tokenizer.eos_token = template.end
    row = {"instruction": "首都は?", "input": "", "output": "東京です。", "category": "open_qa"}
    encoded = RowEncoder(tokenizer, FormattingFunction(template), 512, train_on_inputs=False).encode_row(row)
    answer = [*encode_text(tokenizer, "東京です。"), tokenizer.convert_tokens_to_ids(end)]
    assert encoded.labels == [-100] * encoded.prompt_tokens + answer
    assert encoded.input_ids[: encoded.prompt_tokens] == encode_prompt(tokenizer, template.render("首都は?"))


def test_a_saved_chat_template_is_read_back_the_same(chat, tmp_path):
    template = chat_template(chat[0])
    template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == template
    assert PromptTemplate.load(tmp_path).sha256 == template.sha256


def test_a_template_that_writes_the_date_is_the_same_every_day(chat, monkeypatch):
    tokenizer, _ = chat
    tokenizer.chat_template = "{{ strftime_now('%H:%M:%S.%f') }}" + tokenizer.chat_template
    first = chat_template(tokenizer)
    assert "26 Jul 2024" in first.with_input
    assert chat_template(tokenizer) == first
    set_chat_template(tokenizer, first, [{"instruction": "首都は?", "input": "日本の首都は東京です。"}])
    turns = message("首都は?", "")
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == first.render("首都は?")


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"no chat template; set prompt\.template: alpaca-ja$"):
        chat_template(tokenizer)
    with pytest.raises(UserError, match=r"no chat template; set prompt\.template: alpaca-ja-context-first$"):
        chat_template(tokenizer, "chat-context-first")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('システムが要る') }}", "システムが要る"),
        ("{{ messages[0]['content'][:4] }}", "exactly once"),
        (CHATML.partition("{% if add")[0], "does not show where an answer begins"),
        (CHATML.replace("<|im_end|>", "<end>"), "<end>, which ends a turn, is not marked as special"),
        (CHATML.replace("<|im_start|>", "{{ eos_token }}"), "writes the end-of-text token into the prompt"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "exactly once"),
    ],
)
def test_a_chat_template_that_does_not_fit_is_one_clear_line(tiny_base, template, message):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.add_tokens(["<end>"])
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=message):
        chat_template(tokenizer)


def test_a_chat_run_is_trained_and_answers_with_its_template(program, tiny_base, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    # Places in the vocabulary that exist already: a chat model has its special tokens from the beginning.
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(base)
    model.save_pretrained(base)
    settings = [f"model.base={base}", "model.build=null", "data.train_rows=32", f"run.directory={tmp_path / 'run'}"]
    done = program(
        "train_sft", "configs/tiny.yaml", *settings, "prompt.template=chat-context-first", "training.eval_strategy=no"
    )
    assert done.returncode == 0, done.stderr
    adapter = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    assert adapter.eos_token == "<|im_end|>"
    asked = program("infer", tmp_path / "run", "--instruction", "首都は?", "generation.max_new_tokens=4")
    assert asked.returncode == 0, asked.stderr
    other = program("infer", tmp_path / "run", "--instruction", "首都は?", "prompt.template=alpaca-ja")
    assert other.returncode == 2
    assert "--allow-other-template" in other.stderr
