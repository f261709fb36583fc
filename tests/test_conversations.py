"""Conversations: rows are those of TRL's own training templates, token for token, and what is lost of them is said."""

import dataclasses
import hashlib
import json
import shutil

import pytest
import small_models
from transformers import AutoModelForCausalLM
from trl.chat_template_utils import get_training_chat_template

from eval.predictions import read_predictions
from sft.checks.data_checks import systems
from sft.data.rows import write_rows
from sft.data.survey import survey
from sft.generation.answerer import load_answerer, open_run
from sft.model.load import load_tokenizer
from sft.prompt.chat_template import set_chat_template
from sft.prompt.encode import encode_answer, encode_prompt, encode_text
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.lost_turns import histories, lost_turns
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, TEMPLATES, FormattingFunction, PromptTemplate, chat_template, with_fixed_date
from sft.system.errors import UserError

SYSTEM = ("system", "丁寧に、3行以内で答えてください。")
TURNS = [
    ("user", "富士山の高さは?"), ("assistant", "3776メートルです。"),
    ("user", "誰が測りましたか。\n\n一人ですか?"), ("assistant", "  いいえ。\n- 測量師たち\n- 2名 😀"),
    ("user", " {人口}は? \n"), ("assistant", "わかりません。\n"),
]  # fmt: skip
CONVERSATIONS = {
    "one question": [],
    "a system message": [SYSTEM],
    "two turns": TURNS[:2],
    "four turns": TURNS,
    "four turns and a system message": [SYSTEM, *TURNS],
}
QUESTION, ANSWER = "では、日本で2番目に高い山は?", "北岳です。\n標高は3193メートルです。"
THINKING = "<think>\n\n</think>\n\n"
TRAINED = ["qwen2_5", "qwen3", "qwen3_instruct_2507", "gemma", "gemma3", "llama3"]
"""Templates that TRL has a training template for."""


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """The tokenizer of a chat model, as it is in training: the end of a turn is its end-of-text token."""
    directory, made = tmp_path_factory.mktemp("chats"), {}

    def tokenizer(chat):
        if chat not in made:
            made[chat] = small_models.chat_tokenizer(chat, directory / chat)
        made[chat].eos_token = chat_template(made[chat]).end
        return made[chat]

    return tokenizer


def row_of(history, question=QUESTION, context="", answer=ANSWER):
    turns = [{"role": role, "content": content} for role, content in history]
    row = {"index": "1", "instruction": question, "input": context, "output": answer, "category": "", "answers": []}
    return row | {"history": turns}


def test_the_same_question_after_other_turns_is_another_question():
    turns = [[("user", "a")], [("user", "b")], [("user", "b")]]
    rows = [row_of([], "もっと詳しく", answer=f"答え{n}") | {"history": turn} for n, turn in enumerate(turns)]
    assert survey(write_rows(rows)).answered_otherwise == 1


def encoder(tokenizer, max_length=2048, template=None, **options):
    options = {"train_on_inputs": False, "turns": "all"} | options
    return RowEncoder(tokenizer, FormattingFunction(template or chat_template(tokenizer)), max_length, **options)


def messages(history, answered=False):
    last = [("user", QUESTION), ("assistant", ANSWER)][: 1 + answered]
    return [{"role": role, "content": content} for role, content in (*history, *last)]


def learned_texts(tokenizer, row):
    """The runs of supervised tokens, as text."""
    runs, before = [], IGNORE_INDEX
    for label in row.labels:
        if label != IGNORE_INDEX:
            runs += [[]] if before == IGNORE_INDEX else []
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


def places(part, ids):
    return [place for place in range(len(ids)) if ids[place : place + len(part)] == part]


def trl_row(tokenizer, chat, history):
    """Token ids by TRL's training template, and whether it supervises each.

    What the rows here do not have is taken away: Qwen3's empty thoughts, and what follows the last answer's end. Qwen
    2.5's template also supervises the line break before an answer, which is given to the model that answers.
    """
    template = get_training_chat_template(tokenizer)
    made = tokenizer.apply_chat_template(
        messages(history, answered=True), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = made["input_ids"], made["assistant_masks"]
    if chat == "qwen3":
        thinking = encode_text(tokenizer, THINKING)
        for place in reversed(places(thinking, ids)):
            assert all(mask[place : place + len(thinking)])
            del ids[place : place + len(thinking)], mask[place : place + len(thinking)]
    if chat == "qwen2_5":
        header = encode_text(tokenizer, "assistant\n")
        for place in places(header, ids):
            assert mask[place : place + len(header)] == [0] * (len(header) - 1) + [1]
            mask[place + len(header) - 1] = 0
    last = len(ids) - ids[::-1].index(tokenizer.eos_token_id)
    assert tokenizer.decode(ids[last:]) in ("", "\n")
    return ids[:last], mask[:last]


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("chat", TRAINED)
def test_rows_are_those_of_trls_training_templates(chat, kind, tokenizers):
    tokenizer, history = tokenizers(chat), CONVERSATIONS[kind]
    if chat == "gemma":  # which takes no system message, and says so in the next tests
        history = [turn for turn in history if turn[0] != "system"]
    ids, mask = trl_row(tokenizer, chat, history)
    row = encoder(tokenizer).encode_row(row_of(history))
    assert row.input_ids == ids
    assert row.labels == [i if learned else IGNORE_INDEX for i, learned in zip(ids, mask, strict=True)]
    last = encoder(tokenizer, turns="last").encode_row(row_of(history))
    assert last.input_ids == ids
    assert last.labels == [IGNORE_INDEX] * last.prompt_tokens + row.labels[last.prompt_tokens :]
    assert learned_texts(tokenizer, last) == [ANSWER + tokenizer.eos_token]


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("chat", small_models.CHATS)
def test_prompts_are_the_tokenizers_own_in_text_and_ids(chat, kind, tokenizers):
    tokenizer = tokenizers(chat)
    template = chat_template(tokenizer)
    history = template.taken(CONVERSATIONS[kind])
    assert len(history) == len(CONVERSATIONS[kind]) - (chat == "gemma" and SYSTEM in CONVERSATIONS[kind])
    prompt = template.render(QUESTION, "", CONVERSATIONS[kind])
    turns = messages(CONVERSATIONS[kind] if len(history) == len(CONVERSATIONS[kind]) else history)
    options = {"chat_template": with_fixed_date(tokenizer.chat_template), "add_generation_prompt": True}
    assert prompt == tokenizer.apply_chat_template(turns, tokenize=False, **options)
    assert encode_prompt(tokenizer, prompt) == tokenizer.apply_chat_template(turns, return_dict=False, **options)
    row = encoder(tokenizer).encode_row(row_of(CONVERSATIONS[kind]))
    assert row.input_ids[: row.prompt_tokens] == encode_prompt(tokenizer, prompt)
    assert tokenizer.decode(row.input_ids, clean_up_tokenization_spaces=False) == f"{prompt}{ANSWER}{template.end}"


def test_a_context_stands_below_the_last_question(tokenizers):
    prompt = chat_template(tokenizers("llama3")).render("どこ?", "文脈。 ", TURNS[:2])
    assert prompt.endswith("どこ?\n\n文脈。<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert prompt.count("文脈") == 1


@pytest.mark.parametrize("chat", TRAINED)
def test_names_of_special_tokens_in_earlier_turns_stay_text(chat, tokenizers):
    tokenizer = tokenizers(chat)
    end = tokenizer.eos_token
    poisoned = [
        ("user", f"終わり{end}とは"),
        ("assistant", f"{end}{end}次\n{end}です"),
        ("user", end),
        ("assistant", end),
    ]
    plain = [("user", "終わり"), ("assistant", "次です"), ("user", "終"), ("assistant", "次")]
    rows = [encoder(tokenizer).encode_row(row_of(history)) for history in (plain, poisoned)]
    for special in tokenizer.all_special_ids:
        assert rows[0].input_ids.count(special) == rows[1].input_ids.count(special)
    line_break = "" if chat == "llama3" else "\n"
    texts = [poisoned[1][1] + end + line_break, end + end + line_break, ANSWER + end]
    assert learned_texts(tokenizer, rows[1]) == texts
    prompt = chat_template(tokenizer).render(QUESTION, "", poisoned)
    assert encode_prompt(tokenizer, prompt) == rows[1].input_ids[: rows[1].prompt_tokens]


def test_an_earlier_answer_has_the_last_ones_tokens_where_a_text_begins_with_a_space(small_base):
    tokenizer = load_tokenizer(small_base("llama-2")["base"])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
    )
    history = [("user", "首都は?"), ("assistant", ANSWER)]
    row = encoder(tokenizer).encode_row(row_of(history))
    answer = [*encode_answer(tokenizer, ANSWER), tokenizer.eos_token_id]
    assert [label for label in row.labels if label != IGNORE_INDEX] == answer * 2
    first = encode_prompt(tokenizer, chat_template(tokenizer).render("首都は?"))
    assert row.input_ids[: len(first) + len(answer)] == first + answer


def test_with_loss_on_inputs_everything_is_learned_whatever_turns_says(tokenizers):
    for turns in ("all", "last"):
        row = encoder(tokenizers("gemma"), train_on_inputs=True, turns=turns).encode_row(row_of(TURNS))
        assert row.labels == row.input_ids


def test_templates_of_single_questions_lose_earlier_turns_and_say_so(tokenizers):
    tokenizer = tokenizers("llama3")
    for options in ({}, {"max_length": 64}):
        encode = encoder(tokenizer, template=ALPACA_JA, **options).encode_row
        assert encode(row_of([SYSTEM, *TURNS], context="文脈" * 40)) == encode(row_of([], context="文脈" * 40))
    rows = [[], [SYSTEM], [SYSTEM, *TURNS], TURNS, []]
    (line,) = lost_turns(ALPACA_JA, rows)
    assert line == (
        "prompt.template alpaca-ja takes single questions: of 5 rows 2 lose their earlier turns and 2 their system "
        "message; set prompt.template: chat, if the model has a chat template"
    )
    (line,) = lost_turns(TEMPLATES["alpaca-ja-context-first"], rows)
    assert line.endswith("set prompt.template: chat-context-first, if the model has a chat template")
    assert lost_turns(chat_template(tokenizer), rows) == []
    (line,) = lost_turns(chat_template(tokenizers("gemma")), rows)
    assert "takes no system message: of 5 rows 2 lose their system message" in line
    assert lost_turns(ALPACA_JA, [[], []]) == []


def test_a_template_that_forgets_earlier_turns_takes_none(tokenizers, tmp_path):
    tokenizer = small_models.chat_tokenizer("qwen3", tmp_path / "own")
    ends = "<|im_end|>\n{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    last = "{% for m in messages %}{% if loop.last or loop.index == 2 or m.role == 'user' and loop.length == 2 %}"
    tokenizer.chat_template = (
        f"{last}{{{{ '<|im_start|>' + m.role + '\n' + m.content }}}}"
        "{% if not loop.last %}<|im_end|>\n{% endif %}{% endif %}{% endfor %}" + ends
    )
    template = chat_template(tokenizer)
    assert (template.turn, template.trimmed) == (None, ())
    assert template.render(QUESTION, "", TURNS) == template.render(QUESTION)
    (line,) = lost_turns(template, [TURNS])
    assert "this model's chat template takes no more" in line


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("system", [[], [SYSTEM]])
def test_a_conversation_that_is_too_long_loses_its_oldest_turns(tokenizers, system, turns):
    tokenizer = tokenizers("qwen3")
    left = [encoder(tokenizer, turns=turns).encode_row(row_of([*system, *TURNS[n:]])) for n in (0, 2, 4, 6)]
    lengths = [len(row.input_ids) for row in left]
    for budget in range(lengths[-1], lengths[0] + 1):
        row = encoder(tokenizer, budget, turns=turns).encode_row(row_of([*system, *TURNS]))
        longest = next(row for row in left if len(row.input_ids) <= budget)
        assert (row.input_ids, row.labels) == (longest.input_ids, longest.labels)
        assert row.fate == ("whole" if longest is left[0] else "context shortened")
    assert encoder(tokenizer, lengths[-1] - 1).encode_row(row_of([*system, *TURNS])).fate == "dropped"


def test_a_context_is_shortened_when_no_turn_is_left(tokenizers):
    tokenizer, context = tokenizers("qwen3"), "文脈です。" * 30
    alone = encoder(tokenizer).encode_row(row_of([SYSTEM], context="文"))
    row = encoder(tokenizer, len(alone.input_ids) + 20).encode_row(row_of([SYSTEM, *TURNS], context=context))
    assert row.fate == "context shortened"
    assert len(row.input_ids) <= len(alone.input_ids) + 20
    text = tokenizer.decode(row.input_ids)
    assert SYSTEM[1] in text
    assert f"{QUESTION}\n\n文脈です。" in text
    assert TURNS[4][1] not in text
    assert learned_texts(tokenizer, row) == [ANSWER + "<|im_end|>"]


def test_cutting_the_end_keeps_what_was_learned_before(tokenizers):
    tokenizer = tokenizers("qwen3")
    whole = encoder(tokenizer).encode_row(row_of(TURNS))
    for budget in (len(whole.input_ids) - 2, whole.prompt_tokens):
        row = encoder(tokenizer, budget, truncation="end").encode_row(row_of(TURNS))
        assert (row.input_ids, row.labels, row.fate) == (whole.input_ids[:budget], whole.labels[:budget], "end cut off")
    last = encoder(tokenizer, whole.prompt_tokens, truncation="end", turns="last")
    assert last.encode_row(row_of(TURNS)).fate == "dropped"


def test_several_system_messages_become_one_and_this_is_said(tokenizers):
    rules = [("system", "簡潔に。"), ("system", "敬語で。")]
    rows = write_rows([row_of([]) | {"index": str(n), "history": rules[:n]} for n in (0, 1, 2)])
    (line,) = systems(rows, survey(rows))
    assert line.level == "yellow"
    assert line.found.startswith("1 of 3 rows has several, which become one")
    assert not systems(rows, survey(write_rows([row_of([]) | {"history": rules[:1]}])))
    template = chat_template(tokenizers("llama3"))
    assert template.taken(rules) == [("system", "簡潔に。\n\n敬語で。")]


def test_kept_rows_are_of_one_setting_of_turns_and_one_history(tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    tokenizer = tokenizers("llama3")
    rows = [write_rows([row_of([]) | {"history": history}]) for history in ([], TURNS[:2], TURNS[2:4])]
    for turns in ("all", "last"):
        for some in rows:
            encoder(tokenizer, turns=turns).encode(some)
    assert len(list((tmp_path / "encoded-rows").glob("*.arrow"))) == 6
    (row,) = encoder(tokenizer).encode(rows[1]).rows
    assert row["labels"] == encoder(tokenizer).encode_row(row_of(TURNS[:2])).labels
    assert list(histories(rows[1])) == [TURNS[:2]]


@pytest.mark.parametrize("chat", small_models.CHATS)
def test_a_saved_template_is_read_back_with_its_turns(chat, tokenizers, tmp_path):
    template = chat_template(tokenizers(chat))
    template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == template
    assert PromptTemplate.load(tmp_path).render(QUESTION, "", TURNS) == template.render(QUESTION, "", TURNS)


def test_templates_of_earlier_versions_take_single_questions_and_keep_their_hash(tokenizers, tmp_path):
    saved = dataclasses.asdict(chat_template(tokenizers("llama3")))
    for name in ("turn", "turn_end", "system", "trimmed"):
        del saved[name]
    (tmp_path / "prompt_template.json").write_text(json.dumps(saved))
    template = PromptTemplate.load(tmp_path)
    parts = [template.with_input, template.without_input, *template.special_tokens, template.end]
    assert template.sha256 == hashlib.sha256("\0".join(parts).encode()).hexdigest()
    assert template.render(QUESTION, "", [SYSTEM, *TURNS]) == template.render(QUESTION)
    assert template.sha256 != chat_template(tokenizers("llama3")).sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"turn": "{instruction}"}, {"turn": "x{instruction}{output}"}, {"turn": "{output}{instruction}"},
        {"turn": "{instruction}{output}{output}"}, {"turn": 3}, {"turn": ["{instruction}{output}"]},
        {"turn_end": "another"}, {"turn_end": None},
        {"system": ""}, {"system": "{system}{system}"}, {"system": "{other}"}, {"system": {}},
        {"trimmed": "user"}, {"trimmed": ["tool"]}, {"trimmed": None}, {"trimmed": [["user"]]}, {"turns": "all"},
    ],
    ids=str,
)  # fmt: skip
def test_a_tampered_template_of_conversations_is_one_line(tokenizers, tmp_path, changes):
    saved = dataclasses.asdict(chat_template(tokenizers("llama3"))) | changes
    (tmp_path / "prompt_template.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"prompt_template\.json: not a prompt template: [^\n]+$"):
        PromptTemplate.load(tmp_path)


@pytest.mark.parametrize("chat", TRAINED)
def test_an_exported_tokenizer_asks_conversations_as_they_were_trained(chat, tokenizers):
    tokenizer = tokenizers(chat)
    rows = [row_of(history) for history in CONVERSATIONS.values()]
    set_chat_template(tokenizer, chat_template(tokenizer), rows)  # raises where one of them differs


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """A file of rows as messages: with a system message, with earlier turns, with both, and single questions."""
    path = tmp_path_factory.mktemp("data") / "messages.jsonl"
    lines = []
    for number in range(40):
        turns = [(role, f"{number}: {content}") for role, content in TURNS[: 2 * (number % 4)]]
        history = [SYSTEM] * (number % 2) + turns
        last = [("user", f"{number}の次は?"), ("assistant", f"{number + 1}です。")]
        lines.append({"messages": [{"role": role, "content": content} for role, content in (*history, *last)]})
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chat_base(tmp_path_factory, small_base):
    base = tmp_path_factory.mktemp("chat") / "base"
    AutoModelForCausalLM.from_pretrained(small_base("qwen2.5")["base"]).save_pretrained(base)
    small_models.chat_tokenizer("qwen2_5", base.parent / "tokenizer").save_pretrained(base)
    return base


def test_a_run_of_conversations_is_trained_and_answers_the_last_turn(program, chat_base, conversations, tmp_path):
    run = tmp_path / "run"
    words = [f"model.base={chat_base}", "model.build=null", f"run.directory={run}", f"data.path={conversations}"]
    words += ["prompt.template=chat", "training.train_on_inputs=false", "training.turns=all", "data.test_share=0.3"]
    words += ["lora.target_modules=[q_proj,v_proj]"]
    checked = program("train_sft", "configs/tiny.yaml", *words, "--dry-run")
    assert "supervise more than one" not in checked.stdout
    assert "lose their earlier turns" not in checked.stdout + checked.stderr
    done = program("train_sft", "configs/tiny.yaml", *words, "training.eval_strategy=no")
    assert done.returncode == 0, done.stderr
    done = program("eval.__main__", run, "generation.max_new_tokens=4", "eval.resamples=20")
    assert done.returncode == 0, done.stderr
    (path,) = run.rglob("predictions.jsonl")
    predictions = list(read_predictions(path))
    assert {len(one.example.history) for one in predictions} > {0, 3}
    for one in predictions:
        assert all(content in one.prompt for _, content in one.example.history)
        assert one.prompt.endswith(f"{one.example.instruction}<|im_end|>\n<|im_start|>assistant\n")
    answerer = load_answerer(open_run(run))
    whole, long = (answerer.prompt("次は?", history=[SYSTEM, *TURNS * times]) for times in (1, 200))
    assert (whole.context_shortened, long.context_shortened) == (False, True)
    assert SYSTEM[1] in long.text
    assert len(long.ids) <= answerer.context_length - answerer.generation["max_new_tokens"]


def test_an_alpaca_run_of_conversations_says_what_it_loses(program, chat_base, conversations, tmp_path):
    words = [f"model.base={chat_base}", "model.build=null", f"run.directory={tmp_path / 'run'}"]
    checked = program("train_sft", "configs/tiny.yaml", *words, f"data.path={conversations}", "--dry-run")
    assert "supervise more than one" not in checked.stdout
    said = " ".join(checked.stdout.replace("│", " ").split())
    assert "of 40 rows 30 lose their earlier turns and 20 their system message" in said


def test_an_evaluation_with_a_template_of_single_questions_says_what_is_lost(
    program, trained_run, conversations, tmp_path
):
    run = shutil.copytree(trained_run, tmp_path / "run")
    words = [f"eval.data={conversations}", "generation.max_new_tokens=2", "eval.resamples=20"]
    done = program("eval.__main__", run, *words)
    assert done.returncode == 0, done.stderr
    (path,) = run.rglob("predictions.jsonl")
    predictions = list(read_predictions(path))
    roles_of = {one.example.index: [role for role, _ in one.example.history] for one in predictions}.values()
    turns, system = (sum(role in roles for roles in roles_of) for role in ("user", "system"))
    said = f"of {len(roles_of)} rows {turns} lose their earlier turns and {system} their system message"
    assert said in done.stderr
    assert all(one.prompt == ALPACA_JA.render(one.example.instruction) for one in predictions)
