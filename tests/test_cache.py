"""The cache with room: it holds what transformers' own holds, in the same place until the room is used up."""

import copy

import pytest
import torch
from transformers import Gemma3TextConfig, GPTNeoXConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from sft.generation.batch.cache import ROOM_TOKENS, GrowingLayer, GrowingSlidingLayer, can_join, growing_cache, join


def states(rows, tokens):
    # As models hand them over: heads and tokens are swapped in memory, keys and values lie side by side.
    return torch.randn(rows, tokens, 3, 2 * 8).transpose(1, 2).chunk(2, dim=-1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GrowingLayer(), DynamicLayer()),
        (GrowingSlidingLayer(7), DynamicSlidingWindowLayer(7)),
        (GrowingSlidingLayer(100), DynamicSlidingWindowLayer(100)),
    ],
    ids=["full", "window shorter than the prompt", "window shorter than the answer"],
)
def test_it_holds_what_transformers_own_holds(ours, theirs):
    torch.manual_seed(0)
    rows = 4
    for step, tokens in enumerate([9, *[1] * (2 * ROOM_TOKENS), 7, 1]):
        if step in (3, 90):  # rows leave
            rows -= 1
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.arange(rows))
        if step == 40:
            ours = copy.deepcopy(ours)
        more = states(rows, tokens)
        for found, expected in zip(ours.update(*more), theirs.update(*more), strict=True):
            assert found.equal(expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_memory_stays_until_its_room_is_used_up():
    layer = GrowingLayer()
    layer.update(*states(2, 5))
    places = []
    for _ in range(ROOM_TOKENS + 1):
        layer.update(*states(2, 1))
        places.append(layer.keys.data_ptr())
    assert len(set(places[:-1])) == 1
    assert places[-1] != places[0]


def test_a_copy_grows_on_its_own():
    cache = growing_cache(GPTNeoXConfig(num_hidden_layers=1))
    cache.update(*states(1, 3), layer_idx=0)
    other = copy.deepcopy(cache)
    kept = cache.update(*states(1, 1), layer_idx=0)[0].clone()
    other.update(*states(1, 1), layer_idx=0)
    assert cache.layers[0].keys.equal(kept)
    assert not other.layers[0].keys.equal(kept)


def test_rows_of_several_caches_are_joined_at_their_last_tokens():
    kinds = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(num_hidden_layers=2, layer_types=kinds, sliding_window=4)
    assert can_join(config)
    torch.manual_seed(0)
    caches = [growing_cache(config) for _ in range(3)]
    given = [states(rows, tokens) for rows, tokens in ((3, 6), (2, 2), (1, 3))]
    for cache, pair in zip(caches, given, strict=True):
        for layer in range(2):
            cache.update(*pair, layer_idx=layer)
    join(caches[0], [(2, 6)], caches[1:], width=5)
    expected = torch.zeros(4, 3, 5, 8)
    expected[0] = given[0][0][2, :, -5:]
    expected[1:3, :, -2:] = given[1][0]
    expected[3:, :, -3:] = given[2][0]
    sliding, full = caches[0].layers
    assert full.keys.equal(expected)
    assert sliding.keys.equal(expected[:, :, -3:])
    assert [layer.get_seq_length() for layer in (sliding, full)] == [5, 5]
    assert sliding.get_mask_sizes(1) == (4, 2)
