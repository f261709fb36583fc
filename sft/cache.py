"""Keys and values with room for the tokens to come: transformers' own cache copies all of them for every token."""

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM_TOKENS = 64
"""Tokens that memory is set aside for when there is none left."""


class GrowingLayer(DynamicLayer):
    """DynamicLayer, except that `keys` and `values` are the filled part of larger tensors."""

    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, (rows, heads, tokens, width), and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(self.keys, key_states)
        self.values = _append(self.values, value_states)
        return self.keys, self.values


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model of this configuration; layers with a sliding window keep the library's own kind."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _append(held: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    rows, heads, tokens, width = more.shape
    filled = held.shape[2] if held.numel() else 0
    room = held.stride(1) // held.stride(2) if filled else 0  # tokens that the tensor `held` is part of has
    if filled + tokens <= room:
        whole = held.as_strided((rows, heads, room, width), held.stride())
    else:
        whole = more.new_empty(rows, heads, filled + tokens + ROOM_TOKENS, width)
        if filled:
            whole[:, :, :filled] = held
    whole[:, :, filled : filled + tokens] = more
    return whole[:, :, : filled + tokens]
