"""Answering: a batch answers as one at a time does, the penalty counts what its scope says, characters stay whole."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    RepetitionPenaltyLogitsProcessor,
)

from sft.generation import (
    CharacterStreamer,
    ScopedRepetitionPenalty,
    batches,
    decode,
    effective_settings,
    generate,
    read_prompts,
)
from sft.loss import add_token_nll
from sft.model import load_base
from sft.shown import visible
from sft.tokenization import encode_prompt, encode_text


@pytest.fixture(scope="module")
def model(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base).eval()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    texts = [
        "首都は?",
        "日本で一番高い山はどこにありますか。詳しく教えてください。",
        "春",
        "りんごとみかんを分けてください。" * 4,
    ]
    return [encode_prompt(tokenizer, text) for text in texts]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.3, "repetition_penalty_scope": "generated"},
        {"temperature": 0.0, "repetition_penalty": 5.0, "repetition_penalty_scope": "all"},
    ],
)
def test_a_batch_answers_as_one_at_a_time_does(model, tokenizer, prompts, settings):
    settings = {"max_new_tokens": 16} | settings
    together = generate(model, tokenizer, prompts, settings)
    alone = [generate(model, tokenizer, [prompt], settings)[0] for prompt in prompts]
    assert together == alone


def test_rows_that_end_leave_the_batch_and_change_no_answer(model, tokenizer, prompts, monkeypatch):
    settings = {"max_new_tokens": 16, "repetition_penalty": 1.5, "repetition_penalty_scope": "all"}
    (long,) = generate(model, tokenizer, prompts[1:2], settings)
    early = encode_text(tokenizer, long.text)[2]  # from here on, what this answer says third ends every answer
    monkeypatch.setattr("sft.generation.eos_id", lambda tokenizer: early)
    whole_batch = generate(model, tokenizer, prompts, settings | {"use_cache": False})  # transformers' own loop
    rows = []
    handle = model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(output.logits)), with_kwargs=True
    )
    together = generate(model, tokenizer, prompts, settings)
    handle.remove()
    assert together == whole_batch
    assert {answer.finish_reason for answer in together} == {"eos", "length"}
    assert rows[0] == len(prompts) > rows[-1]


@pytest.mark.parametrize("window", [None, 8])
def test_prompts_are_read_once_for_several_settings(model, tokenizer, prompts, window):
    if window:  # layers that keep the last tokens only, fewer than the prompts have
        torch.manual_seed(0)
        config = Gemma3TextConfig(
            vocab_size=4096, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, sliding_window=window,
            layer_types=["sliding_attention", "full_attention"],
        )  # fmt: skip
        model = Gemma3ForCausalLM(config).eval()
    cache = read_prompts(model, tokenizer, prompts)
    for settings in ({}, {"repetition_penalty": 1.5}, {"repetition_penalty": 5.0, "repetition_penalty_scope": "all"}):
        settings = {"max_new_tokens": 12} | settings
        again = generate(model, tokenizer, prompts, settings, prompt_cache=copy.deepcopy(cache))
        assert again == generate(model, tokenizer, prompts, settings)
    assert read_prompts(model, tokenizer, [[5]]) is None


def test_a_prompts_logits_are_not_computed(tiny_base, tokenizer, prompts):
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    add_token_nll(model)
    positions = []
    model.register_forward_hook(lambda module, args, output: positions.append(output.logits.shape[1]))
    generate(model, tokenizer, prompts, {"max_new_tokens": 3})
    assert positions == [1, 1, 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_head_reads_dense_rows(tiny_base, tokenizer, prompts, rows):
    model = load_base(str(tiny_base), torch.device("cpu"), torch.float32)
    strides = []
    model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: strides.append(inputs[0].stride()))
    generate(model, tokenizer, prompts[1 : 1 + rows], {"max_new_tokens": 2})
    width = model.config.hidden_size
    assert strides == [(width, width, 1)] * 2


def test_the_penalty_works_in_plain_transformers(model, tokenizer, prompts):
    texts = [tokenizer.decode(prompt) for prompt in prompts]
    inputs = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
    penalty = ScopedRepetitionPenalty(1.2, "generated", prompt_mask=inputs["attention_mask"])
    output = model.generate(**inputs, logits_processor=[penalty], max_new_tokens=16, do_sample=False)
    ours = generate(model, tokenizer, prompts, {"max_new_tokens": 16, "repetition_penalty": 1.2})
    assert [decode(tokenizer, row) for row in output[:, inputs["input_ids"].shape[1] :]] == [a.text for a in ours]


def test_scope_all_is_transformers_own_penalty_for_an_unpadded_row():
    ids, scores = torch.tensor([[3, 5, 5, 9]]), torch.randn(1, 12)
    ours = ScopedRepetitionPenalty(1.7, "all", torch.ones(1, 3))(ids, scores.clone())
    torch.testing.assert_close(ours, RepetitionPenaltyLogitsProcessor(1.7)(ids, scores.clone()))


def test_scope_generated_is_transformers_own_penalty_with_the_prompt_ignored():
    ids, scores = torch.tensor([[3, 5, 5, 9, 7], [1, 1, 4, 8, 8]]), torch.randn(2, 12)
    ours = ScopedRepetitionPenalty(1.7, "generated", torch.tensor([[1, 1, 1], [0, 0, 1]]))(ids, scores.clone())
    expected = RepetitionPenaltyLogitsProcessor(1.7, prompt_ignore_length=3)(ids, scores.clone())
    torch.testing.assert_close(ours, expected)


def test_padding_is_never_penalised_even_when_it_is_the_end_of_text_token():
    scores = torch.tensor([[2.0, 2.0, 2.0, -2.0]])
    padded = ScopedRepetitionPenalty(2.0, "all", torch.tensor([[0, 0, 1]]))(torch.tensor([[0, 0, 3]]), scores)
    assert padded.tolist() == [[2.0, 2.0, 2.0, -4.0]]


def test_several_answers_a_prompt_share_its_mask():
    penalty = ScopedRepetitionPenalty(2.0, "all", torch.tensor([[0, 1], [1, 1]]))
    scores = torch.full((4, 6), 2.0)
    ids = torch.tensor([[0, 3], [0, 3], [1, 2], [1, 2]])
    occurred = penalty(ids, scores) < 2
    assert [row.nonzero().flatten().tolist() for row in occurred] == [[3], [3], [1, 2], [1, 2]]


def test_zero_temperature_is_greedy_and_drops_what_would_be_ignored():
    settings = {"temperature": 0.0, "top_p": 0.75, "top_k": 40, "repetition_penalty": 1.0, "max_new_tokens": 8}
    assert effective_settings(settings) == {"max_new_tokens": 8, "do_sample": False}
    assert effective_settings(settings | {"temperature": 0.7})["do_sample"] is True


def test_sampling_is_repeated_by_its_seed(model, tokenizer, prompts):
    settings = {"max_new_tokens": 12, "temperature": 0.7, "top_p": 0.75, "top_k": 40}
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(generate(model, tokenizer, prompts, settings))
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_that_ends_is_told_from_one_that_is_cut(model, tokenizer, prompts):
    (cut,) = generate(model, tokenizer, prompts[:1], {"max_new_tokens": 5, "temperature": 0.0})
    assert (cut.finish_reason, cut.tokens) == ("length", 5)
    # A head that knows only the end-of-text token.
    ending = AutoModelForCausalLM.from_pretrained(model.name_or_path).eval()
    bias = torch.zeros(4096)
    bias[tokenizer.eos_token_id] = 100.0
    ending.get_output_embeddings().bias = torch.nn.Parameter(bias)
    (ended,) = generate(ending, tokenizer, prompts[:1], {"max_new_tokens": 5, "temperature": 0.0})
    assert (ended.text, ended.finish_reason, ended.tokens) == ("", "eos", 1)


def test_batches_hold_every_row_once_longest_first_within_the_budget():
    prompts = [[0] * length for length in (5, 90, 7, 30, 30, 2)]
    groups = list(batches(prompts, new_tokens=10, budget=100))
    assert sorted(row for group in groups for row in group) == list(range(6))
    assert groups[0] == [1]
    for group in groups:
        assert len(group) == 1 or len(group) * (max(len(prompts[row]) for row in group) + 10) <= 100


def test_what_is_streamed_is_the_answer(model, tokenizer, prompts):
    pieces = []
    streamer = CharacterStreamer(tokenizer, pieces.append)
    (answer,) = generate(model, tokenizer, prompts[1:2], {"max_new_tokens": 16}, streamer)
    assert "".join(pieces).strip() == visible(answer.text) != ""


@pytest.mark.parametrize("text", ["富士山😀の高さは3776m。", "鱻を\n食べる。", "ＡＢＣ ｱｲｳ"])
def test_streaming_writes_whole_characters_and_the_whole_text(tokenizer, text):
    pieces = []
    streamer = CharacterStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[5, 6, 7]]))  # the prompt
    for token in tokenizer(text)["input_ids"]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 1
