"""The cache with room: it holds what transformers' own holds, in the same place until the room is used up."""

import copy

import torch
from transformers import GPTNeoXConfig
from transformers.cache_utils import DynamicLayer

from sft.cache import ROOM_TOKENS, GrowingLayer, growing_cache


def states(rows, tokens):
    # As models hand them over: heads and tokens are swapped in memory, keys and values lie side by side.
    return torch.randn(rows, tokens, 3, 2 * 8).transpose(1, 2).chunk(2, dim=-1)


def test_it_holds_what_transformers_own_holds():
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    rows = 4
    for step, tokens in enumerate([5, *[1] * (2 * ROOM_TOKENS), 7, 1]):
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
