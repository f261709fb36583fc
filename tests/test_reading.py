"""Prompts that are read packed leave what each leaves alone, and what they have in common is read once."""

import pytest
import torch
from test_packing import CONFIGS, LONGER, build, documents, rows_that_begin_alike

from sft.generation.batch import reading
from sft.generation.batch.cache import growing_cache, join
from sft.generation.batch.reading import alike, can_read_packed, read_packed


def prompts():
    """Some begin alike, two are the same, one has a single token."""
    return [*rows_that_begin_alike(), documents()[1], LONGER[:3]]


@pytest.mark.parametrize("architecture", CONFIGS)
@torch.inference_mode()
def test_packed_prompts_leave_the_logits_keys_and_values_of_each_alone(architecture):
    model, asked = build(architecture), prompts()
    assert can_read_packed(model)
    read = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    cache = growing_cache(model.config)
    found = read_packed(model, asked, cache)
    assert model.config._attn_implementation == "sdpa"
    assert read[0] < sum(map(len, asked)) - 30
    together = growing_cache(model.config)
    join(together, [], [cache], width=max(map(len, asked)))
    for row, prompt in enumerate(asked):
        alone, one = growing_cache(model.config), growing_cache(model.config)
        expected = model(input_ids=torch.tensor([prompt]), past_key_values=alone).logits[0, -1]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=2e-5)
        join(one, [], [alone], width=len(prompt))
        for ours, theirs in zip(together.layers, one.layers, strict=True):
            for states, its_own in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
                kept = min(its_own.shape[2], len(prompt))
                torch.testing.assert_close(states[row, :, -kept:], its_own[0, :, -kept:], rtol=0, atol=2e-5)
            assert ours.keys.shape[2] >= theirs.keys.shape[2]


def test_the_plain_attention_comes_back_after_a_failure():
    model = build("llama")
    with pytest.raises(IndexError):
        read_packed(model, [[5, 10_000]], growing_cache(model.config))
    assert model.config._attn_implementation == "sdpa"


def test_models_that_are_not_proved_or_attend_otherwise_are_not_read_packed():
    assert not can_read_packed(build("llama", "eager"))
    scaled = build("llama")
    scaled.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_read_packed(scaled)


def test_those_that_begin_alike_are_read_together_and_each_once(monkeypatch):
    monkeypatch.setattr(reading, "PACKED_TOKENS", 40)
    monkeypatch.setattr(reading, "PACKED_PROMPTS", 5)
    one, other = list(range(100, 130)), list(range(200, 230))
    asked = [[*opening, number] for number in range(6) for opening in (one, other)] + [[7] * 90, [8]]
    bins = list(alike(asked))
    assert sorted(place for places in bins for place in places) == list(range(len(asked)))
    assert max(map(len, bins)) == 5
    assert [7] * 90 in [asked[places[0]] for places in bins if len(places) == 1]
    assert sum(len({asked[place][0] for place in places} & {100, 200}) == 2 for places in bins) <= 1
    assert list(alike([])) == []


@torch.inference_mode()
def test_prompts_that_share_ever_more_can_be_read():
    model, asked = build("llama"), [[5] * length + [9] for length in range(1, 200)]
    logits = torch.cat([
        read_packed(model, [asked[place] for place in places], growing_cache(model.config)) for places in alike(asked)
    ])  # fmt: skip
    order = [place for places in alike(asked) for place in places]
    for row in (0, 57, 198):
        expected = model(torch.tensor([asked[order[row]]])).logits[0, -1]
        torch.testing.assert_close(logits[row], expected, rtol=0, atol=2e-5)
