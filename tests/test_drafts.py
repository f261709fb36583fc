"""Guessed tokens change how often the model is called, and no answer: whatever ends, penalises or draws its tokens."""

import contextlib
import math
from collections import Counter

import pytest
import torch
from test_packing import CONFIGS, build, documents, rows_that_begin_alike

from sft.generation.batch import rows
from sft.generation.batch.drafts import MOST_DRAFTS, Acceptance, Lookup
from sft.generation.batch.rows import largest
from sft.generation.generate import generate, generate_all

SETTINGS = {
    "greedy": {},
    "penalty on the answer": {"repetition_penalty": 1.3, "repetition_penalty_scope": "generated"},
    "penalty on all": {"repetition_penalty": 1.3, "repetition_penalty_scope": "all"},
    "sampled": {"temperature": 1.0, "top_k": 20, "top_p": 0.9},
}
TOKENS = 20


def prompts():
    """Some repeat themselves, so that there is something to look up."""
    return [*rows_that_begin_alike(), documents()[0][:9] * 4, [5], [8, 9] * 20]


@contextlib.contextmanager
def guessing(number):
    """Within it, this many tokens are guessed at each step; None: as many as the acceptance says."""
    with pytest.MonkeyPatch.context() as patch:
        if number is not None:
            patch.setattr(Acceptance, "drafts", lambda self, rows, with_drafts: number)
        yield


def answers(model, tokenizer, asked, settings, budget=100_000):
    """The answers by setting and prompt, and how many calls of the model read how many guesses."""
    calls = Counter()

    def count(module, args, kwargs):
        if kwargs["past_key_values"].get_seq_length():
            calls[kwargs["input_ids"].numel() - len(kwargs["past_key_values"].layers[0].keys)] += 1

    with model.register_forward_pre_hook(count, with_kwargs=True):
        found = generate_all(model, tokenizer, asked, settings, budget, range(len(asked)))
        return {(number, place): answer for number, place, answer in found}, calls


@pytest.mark.parametrize(
    ("architecture", "way"),
    [  # each architecture and each way, but not each with each, in the fast tests
        pytest.param(name, way, marks=[pytest.mark.slow] if (at + its) % len(SETTINGS) else [])
        for at, name in enumerate(CONFIGS)
        for its, way in enumerate(SETTINGS)
    ],
)
def test_answers_are_those_without_guesses_alone_and_in_batches_that_come_and_go(tokenizer, architecture, way):
    model, settings = build(architecture), {"max_new_tokens": TOKENS, **SETTINGS[way]}
    with guessing(0):
        expected, _ = answers(model, tokenizer, prompts(), [settings], 1)
    for number, budget in ((3, 1), (3, 150), (None, 100_000)):
        with guessing(number):
            assert answers(model, tokenizer, prompts(), [settings], budget)[0] == expected


def test_several_settings_at_once_answer_as_each_alone(tokenizer):
    model, settings = (
        build("gemma3_text"),
        [{"max_new_tokens": 9 + 4 * n, **one} for n, one in enumerate(SETTINGS.values())],
    )
    with guessing(3):
        together, _ = answers(model, tokenizer, prompts(), settings, 600)
    with guessing(0):
        for number, one in enumerate(settings):
            alone, _ = answers(model, tokenizer, prompts(), [one])
            assert all(together[number, place] == answer for (_, place), answer in alone.items())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_model_is_called_less_often_where_answers_repeat_something(tokenizer, architecture):
    model, settings = build(architecture), [{"max_new_tokens": 60}]
    found, calls = answers(model, tokenizer, [[8, 9] * 20], settings)
    assert calls.total() < found[0, 0].tokens - 1


@pytest.mark.parametrize("more", [{"no_repeat_ngram_size": 2}, {"min_new_tokens": 5}])
def test_nothing_is_guessed_under_settings_that_may_look_at_anything(tokenizer, more):
    model, settings = build("llama"), {"max_new_tokens": TOKENS, **more}
    with guessing(3):
        found, calls = answers(model, tokenizer, prompts(), [settings, {"max_new_tokens": TOKENS}], 300)
    assert set(calls) == {0}
    for place, prompt in enumerate(prompts()):
        assert found[0, place] == generate(model, tokenizer, [prompt], settings)[0]


def test_models_whose_masks_are_not_known_go_on_in_step(tokenizer):
    eager, plain = build("gemma3_text", "eager"), build("gemma3_text")
    settings = [{"max_new_tokens": TOKENS, **one} for one in SETTINGS.values()]
    with guessing(3):
        expected, _ = answers(plain, tokenizer, prompts(), settings)
        found, calls = answers(eager, tokenizer, prompts(), settings, 300)
    assert (found, set(calls)) == (expected, {0})


@pytest.mark.parametrize("way", SETTINGS)
def test_logits_behind_refused_guesses_may_be_anything(tokenizer, monkeypatch, way):
    model, never, settings = build("llama"), 7, {"max_new_tokens": TOKENS, **SETTINGS[way]}
    bias = torch.zeros(300)
    bias[never] = -math.inf
    model.lm_head.bias = torch.nn.Parameter(bias)
    asked = [[token for token in prompt if token != never] for prompt in prompts()]
    with guessing(0):
        expected, _ = answers(model, tokenizer, asked, [settings])
    monkeypatch.setattr(Lookup, "drafts", lambda self, most: [never] * most)

    def spoil(module, args, kwargs, output):
        if "logits_to_keep" not in kwargs:
            output.logits.masked_fill_((kwargs["input_ids"] == never)[..., None], math.nan)

    model.register_forward_hook(spoil, with_kwargs=True)
    with guessing(2):
        assert answers(model, tokenizer, asked, [settings])[0] == expected


def test_what_followed_the_last_three_tokens_is_guessed_or_else_the_last_two():
    lookup = Lookup([1, 2, 3, 10, 11, 9, 2, 3, 20, 21, 22])
    assert lookup.drafts(3) == []
    for token in (1, 2):
        lookup.append(token)
    assert lookup.drafts(3) == [3, 10, 11]
    lookup.append(3)
    assert lookup.drafts(2) == [10, 11]  # what followed 1 2 3, and not what followed 2 3 the last time
    assert Lookup([5, 2, 3, 10, 2, 3, 20, 2, 3]).drafts(1) == [20]
    assert Lookup([7, 8, 7, 8]).drafts(5) == [7, 8, 7, 8, 7]
    assert Lookup([7]).drafts(5) == Lookup([]).drafts(5) == []


def test_more_is_guessed_the_more_guesses_were_right_and_nothing_for_few_rows():
    def after(rights, rows, with_drafts):
        acceptance = Acceptance()
        for right in rights:
            acceptance.note(right)
        return acceptance.drafts(rows, with_drafts)

    assert after([True] * 50, 12, 12) == MOST_DRAFTS
    assert after([False] * 50, 12, 12) == after([True] * 50, 12, 0) == after([True] * 50, 100, 1) == 0
    assert 0 < after([True, False] * 50, 12, 12) < MOST_DRAFTS
    assert after([False] * 300 + [True] * 300, 12, 12) == MOST_DRAFTS


def test_the_largest_score_is_the_first_of_the_largest(monkeypatch):
    monkeypatch.setattr(rows, "PART", 8)
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (200, 27)).float()
    scores[::7, ::5] = -math.inf
    scores[:3] = -math.inf
    assert torch.equal(largest(scores), scores.argmax(dim=1))
