"""Answering: a batch answers as one at a time does, the penalty counts what its scope says, characters stay whole."""

import contextlib
import math
import random
from collections import Counter

import pytest
import torch
from test_waits import counted
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    RepetitionPenaltyLogitsProcessor,
)

from sft.generation.batch import decoding
from sft.generation.batch.decoding import batches
from sft.generation.batch.rows import drawn
from sft.generation.generate import generate, generate_all
from sft.generation.penalty import ScopedRepetitionPenalty
from sft.generation.settings import effective_settings
from sft.generation.streamer import CharacterStreamer, decode
from sft.model.load import load_base
from sft.model.loss import add_token_nll
from sft.prompt.encode import encode_prompt
from sft.system.errors import UserError
from sft.system.visible import visible
from tests.small_models import SPREAD, gpt_neox, llama


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


VOCABULARY = 4096
PENALTIES = [
    {},
    {"repetition_penalty": 1.3, "repetition_penalty_scope": "generated"},
    {"repetition_penalty": 1.3, "repetition_penalty_scope": "all"},
]
SAMPLED = {"temperature": 1.0, "top_p": 0.9}


def gemma3(window):
    text = Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, sliding_window=window, layer_types=["sliding_attention", "full_attention"],
        **SPREAD,
    )  # fmt: skip
    return Gemma3ForCausalLM(text)


@pytest.fixture(scope="module", params=["gpt_neox", "llama", "gemma3_text"])
def ending_model(request, tokenizer):
    """A small random model whose answers end after different numbers of tokens."""
    torch.manual_seed(0)
    kinds = {"gpt_neox": gpt_neox, "llama": llama, "gemma3_text": lambda vocabulary: gemma3(window=16)}
    model = kinds[request.param](VOCABULARY).eval()
    with torch.no_grad():
        logits = model(torch.arange(5, 505)[None]).logits[0]
    bias = torch.zeros(VOCABULARY)  # with which the end of text comes first after some of the tokens
    bias[tokenizer.eos_token_id] = (logits.amax(dim=1) - logits[:, tokenizer.eos_token_id]).quantile(
        0.4 if request.param == "gemma3_text" else 0.2
    )
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    return model


@pytest.fixture(scope="module")
def many_prompts():
    draw = random.Random(0)
    return [
        [draw.randrange(5, VOCABULARY) for _ in range(length)] for length in (1, 90, 3, 40, 40, 7, 2, 70, 12, 25, 5)
    ]


def all_answers(model, tokenizer, prompts, settings, budget, seeds=None):
    answers = [[None] * len(prompts) for _ in settings]
    for number, place, answer in generate_all(model, tokenizer, prompts, settings, budget, seeds):
        assert answers[number][place] is None
        answers[number][place] = answer
    return answers


@pytest.mark.parametrize("budget", [240, 100_000])
@pytest.mark.parametrize("settings", [*PENALTIES, SAMPLED])
def test_an_answer_is_the_same_whatever_it_shares_a_batch_with(ending_model, tokenizer, many_prompts, settings, budget):
    settings, seeds = {"max_new_tokens": 24, **settings}, range(len(many_prompts))
    (together,) = all_answers(ending_model, tokenizer, many_prompts, [settings], budget, seeds)
    (alone,) = all_answers(ending_model, tokenizer, many_prompts, [settings], 1, seeds)
    assert together == alone
    if settings.get("temperature", 0) == 0:
        assert alone == [generate(ending_model, tokenizer, [prompt], settings)[0] for prompt in many_prompts]
    assert len({answer.tokens for answer in alone}) >= 3
    assert {answer.finish_reason for answer in alone} == {"eos", "length"}


def test_several_settings_answer_as_each_does_alone_and_read_the_prompts_once(ending_model, tokenizer, many_prompts):
    settings = [{"max_new_tokens": tokens, **more} for tokens, more in zip((24, 9, 24), PENALTIES, strict=True)]
    settings += [SAMPLED | {"max_new_tokens": 12}, {"max_new_tokens": 12, "num_beams": 2}]
    seeds = range(len(many_prompts))
    alone = [all_answers(ending_model, tokenizer, many_prompts, [one], 600, seeds)[0] for one in settings]
    assert all_answers(ending_model, tokenizer, many_prompts, settings, 600, seeds) == alone
    read = []
    with hooked(ending_model, lambda _, prompts: read.append(prompts)):
        all_answers(ending_model, tokenizer, many_prompts, settings[:-1], 100_000)
    assert [prompts for prompts in read if prompts] == [len(many_prompts)]


def test_waiting_prompts_take_the_places_of_answers_that_ended_within_the_budget(ending_model, tokenizer, many_prompts):
    rows, read = [], Counter()  # rows of each step, and prompts that were read before it

    def count(decoded, prompts):
        if prompts:
            read[len(rows)] += prompts
        else:
            rows.append(decoded)

    with hooked(ending_model, count):
        all_answers(ending_model, tokenizer, many_prompts, [{"max_new_tokens": 24}], 400)
    assert read[0] == rows[0] == 400 // (90 + 24)
    assert max(rows) <= 400 // (1 + 24)
    assert any(rows[step] > prompts for step, prompts in read.items() if 0 < step < len(rows))


def test_a_setting_that_binds_rows_together_is_left_to_transformers(model, tokenizer, prompts):
    settings = {"max_new_tokens": 8, "num_beams": 2}
    (found,) = all_answers(model, tokenizer, prompts, [settings], 1)
    assert found == [generate(model, tokenizer, [prompt], settings)[0] for prompt in prompts]


@contextlib.contextmanager
def hooked(model, see):
    """Within it, `see` is told of every call of `model` how many rows it decodes, and how many prompts it reads."""

    def told(module, args, kwargs):
        ids, packed = kwargs["input_ids"], kwargs.get("shared_prefixes")
        if packed:  # beginnings that prompts share have no prefix, and are named by others
            see(0, len(packed) - len({prefix for prefix, _, _ in packed} - {None}))
        else:
            cache = kwargs["past_key_values"]
            see(*((len(cache.layers[0].keys), 0) if cache.get_seq_length() else (0, len(ids))))

    handle = model.register_forward_pre_hook(told, with_kwargs=True)
    yield
    handle.remove()


def test_a_prompts_logits_are_not_computed(tiny_base, tokenizer, prompts):
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    add_token_nll(model)
    positions = []
    model.register_forward_hook(lambda module, args, output: positions.append(output.logits.shape[:2].numel()))
    all_answers(model, tokenizer, prompts, [{"max_new_tokens": 3}], 1000)
    assert positions == [len(prompts)] * 3


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
    settings = [{"max_new_tokens": 12, "temperature": 0.7, "top_p": 0.75, "top_k": 40}]
    by_seed = [all_answers(model, tokenizer, prompts, settings, 1000, seeds) for seeds in ([1] * 4, [1] * 4, [2] * 4)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    by_torch = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        by_torch.append(all_answers(model, tokenizer, prompts, settings, 1000))
    assert by_torch[0] == by_torch[1] != by_torch[2]


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{}, SAMPLED, {"num_beams": 2}], ids=["greedy", "sampled", "beams"])
def test_logits_that_are_not_finite_are_an_error_at_once_and_not_an_answer(tokenizer, settings, value):
    model, steps = gpt_neox(VOCABULARY).eval(), []
    model.gpt_neox.register_forward_hook(lambda *_: steps.append(1))
    if math.isnan(value):
        torch.nn.init.constant_(model.gpt_neox.final_layer_norm.weight, value)
    else:  # one logit overflows
        model.get_output_embeddings().register_forward_hook(
            lambda _, __, logits: logits.index_fill(-1, torch.tensor([7]), value)
        )
    prompts, settings = [encode_prompt(tokenizer, "首都は?")], {"max_new_tokens": 4} | settings
    for answer in (
        lambda: list(generate_all(model, tokenizer, prompts, [settings], 100)),
        lambda: generate(model, tokenizer, prompts, settings),
    ):
        steps.clear()
        with pytest.raises(UserError, match="logits are not finite numbers"):
            answer()
        assert len(steps) == 1


def test_what_is_drawn_follows_the_softmax_and_never_what_has_no_probability():
    torch.manual_seed(0)
    scores = torch.randn(3, 50)
    scores[:, [0, 7, 49]] = float("-inf")
    scores[2, 1:] = float("-inf")
    scores[2, 0] = 1.0  # one choice
    even = (torch.arange(20_000) + 0.5) / 20_000
    draws = [*even, torch.tensor(0.0), torch.tensor(1 - 2**-24)]
    chosen = torch.cat([drawn(scores, draw.expand(3, 1)) for draw in draws], dim=1)
    for row, tokens in zip(scores, chosen, strict=True):
        shares = torch.bincount(tokens, minlength=50) / len(even)
        torch.testing.assert_close(shares, row.softmax(-1), rtol=0, atol=2e-4)
        assert shares[row == float("-inf")].sum() == 0


def test_decoding_waits_once_a_token_whatever_is_decoded(model, tokenizer, many_prompts):
    settings = [{"max_new_tokens": 6, **more} for more in (*PENALTIES, SAMPLED)]
    asked = []
    choose = decoding._choose

    def watched(*given):
        with counted() as waits:
            ended = list(choose(*given))
        asked.append(waits)
        yield from ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_choose", watched)
        all_answers(model, tokenizer, many_prompts[:3], settings, 100_000)
    assert len(asked) == 6
    assert all(waits == {"tolist": 1} for waits in asked)
