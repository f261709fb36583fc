"""Keys and values with room for the tokens to come: transformers' own cache copies all of them for every token."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM_TOKENS = 64
"""Tokens that memory is set aside for when there is none left."""


class GrowingLayer(DynamicLayer):
    """DynamicLayer, except that `keys` and `values` are the filled part of larger tensors."""

    def update(self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append keys and values, (rows, heads, tokens, width), and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        needed = self.sliding_window - 1 if self.is_sliding else None
        self.keys = _append(self.keys, key_states, needed)
        self.values = _append(self.values, value_states, needed)
        return self.keys, self.values


class GrowingSlidingLayer(GrowingLayer, DynamicSlidingWindowLayer):
    """DynamicSlidingWindowLayer, except that `keys` and `values` are parts of larger tensors and may hold more tokens.

    What has left the window is left behind when memory is set aside anew.
    """

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append keys and values, (rows, heads, tokens, width), and return what the new tokens may see."""
        tokens = key_states.shape[2]
        self.cumulative_length += tokens
        seen = self.sliding_window - 1 + tokens
        return tuple(states[:, :, -seen:] for states in super().update(key_states, value_states))


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model of this configuration; layers of neither kind above stay the library's own."""
    cache = DynamicCache(config=config)
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[place] = GrowingLayer()
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[place] = GrowingSlidingLayer(layer.sliding_window)
    return cache


def can_join(config: PretrainedConfig) -> bool:
    """Whether `join` knows every layer of this model's cache."""
    return all(isinstance(layer, GrowingLayer) for layer in growing_cache(config).layers)


def join(cache: DynamicCache, rows: Sequence[int], others: Sequence[DynamicCache], width: int) -> None:
    """Make `cache` hold its own rows `rows` and those of `others` below, their last tokens side by side.

    `width` tokens are kept of each row; shorter rows are filled up with zeros on the left, which a mask has to hide.
    """
    for layer, *more in zip(cache.layers, *(other.layers for other in others), strict=True):
        if not layer.is_initialized:
            layer.lazy_initialization(more[0].keys, more[0].values)
        held = width
        if isinstance(layer, GrowingSlidingLayer):
            layer.cumulative_length = width
            held = min(width, layer.sliding_window - 1)
        layer.keys = _stack([layer.keys[rows], *(part.keys for part in more)], held)
        layer.values = _stack([layer.values[rows], *(part.values for part in more)], held)


def _append(held: torch.Tensor, more: torch.Tensor, needed: int | None = None) -> torch.Tensor:
    rows, heads, tokens, width = more.shape
    filled = held.shape[2] if held.numel() else 0
    room = held.stride(1) // held.stride(2) if filled else 0  # tokens that the tensor `held` is part of has
    if filled + tokens <= room:
        whole = held.as_strided((rows, heads, room, width), held.stride())
    else:
        left, filled = filled, filled if needed is None else min(filled, needed)
        whole = more.new_empty(rows, heads, filled + tokens + ROOM_TOKENS, width)
        if filled:
            whole[:, :, :filled] = held[:, :, left - filled :]
    whole[:, :, filled : filled + tokens] = more
    return whole[:, :, : filled + tokens]


def _stack(parts: Sequence[torch.Tensor], tokens: int) -> torch.Tensor:
    parts = [part for part in parts if len(part)]
    _, heads, _, width = parts[0].shape
    whole = parts[0].new_zeros(sum(map(len, parts)), heads, tokens + ROOM_TOKENS, width)
    for part, place in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        kept = min(tokens, part.shape[2])
        place[:, :, tokens - kept : tokens] = part[:, :, part.shape[2] - kept :]
    return whole[:, :, :tokens]
